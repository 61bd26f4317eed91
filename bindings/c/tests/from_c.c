/* The library used from C: verify EVIDENCE NONCE-OR-- POLICY-OR-- [ATTACHMENT...], as of AT. */
#include "caveau_verify.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static CaveauBytes file(const char *path) {
  CaveauBytes bytes = {NULL, 0};
  FILE *stream = fopen(path, "rb");
  if (stream == NULL) {
    perror(path);
    exit(3);
  }
  fseek(stream, 0, SEEK_END);
  bytes.length = (size_t)ftell(stream);
  rewind(stream);
  unsigned char *data = malloc(bytes.length + 1);
  if (data == NULL || fread(data, 1, bytes.length, stream) != bytes.length) exit(3);
  fclose(stream);
  bytes.data = data;
  return bytes;
}

int main(int count, char **arguments) {
  if (count < 5) return 3;
  CaveauRequest request;
  memset(&request, 0, sizeof request);
  request.at = strtoull(arguments[2], NULL, 10);
  if (strcmp(arguments[3], "-") != 0) request.report_data = file(arguments[3]);
  if (strcmp(arguments[4], "-") != 0) request.policy = file(arguments[4]);
  CaveauBytes attachments[16];
  for (int at = 5; at < count && at < 21; at++) attachments[at - 5] = file(arguments[at]);
  request.attachments = attachments;
  request.attachment_count = (size_t)(count - 5);
  CaveauBytes evidence = file(arguments[1]);

  CaveauError *error = NULL;
  CaveauJudgement *judgement = caveau_verify(evidence, &request, &error);
  if (judgement == NULL) {
    printf("error: %s\n", caveau_error_message(error));
    caveau_error_free(error);
    return 4;
  }
  for (size_t at = 0; at < caveau_judgement_check_count(judgement); at++) {
    CaveauCheck check;
    if (!caveau_judgement_check(judgement, at, &check)) return 5;
    printf("check %s %d %s %s\n", check.name, (int)check.verdict, check.code ? check.code : "-", check.sentence);
  }
  CaveauCheck none;
  if (caveau_judgement_check(judgement, 10000, &none)) return 5;
  printf("summary %s\njson %s\n", caveau_judgement_summary(judgement), caveau_judgement_json(judgement));
  int outcome = (int)caveau_judgement_outcome(judgement);
  caveau_judgement_free(judgement);
  /* What is not there does nothing. */
  caveau_judgement_free(NULL);
  caveau_error_free(NULL);
  if (caveau_judgement_outcome(NULL) != CAVEAU_OUTCOME_REFUSED || caveau_error_message(NULL) != NULL) return 5;
  if (caveau_verify(evidence, NULL, NULL) == NULL) return 5;
  return outcome;
}
