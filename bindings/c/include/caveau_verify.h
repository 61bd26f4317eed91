/* Verifier of attestation evidence: SEV-SNP, TDX, SGX, Azure's confidential VMs, tokens.
 *
 * Made by cbindgen from bindings/c/src; do not edit. */

#ifndef CAVEAU_VERIFY_H
#define CAVEAU_VERIFY_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/*
 What a judgement comes to.
 */
typedef enum CaveauOutcome {
  /*
   No check failed, and what matters was expected and holds.
   */
  CAVEAU_OUTCOME_PASSED = 0,
  /*
   No check failed, and something of what matters was not expected. It is not a pass.
   */
  CAVEAU_OUTCOME_AUTHENTIC_NOT_APPRAISED = 1,
  /*
   A check failed.
   */
  CAVEAU_OUTCOME_REFUSED = 2,
} CaveauOutcome;

/*
 What one check came to.
 */
typedef enum CaveauVerdict {
  /*
   It holds.
   */
  CAVEAU_VERDICT_OK = 0,
  /*
   It does not.
   */
  CAVEAU_VERDICT_FAILED = 1,
  /*
   Such evidence has nothing of the kind.
   */
  CAVEAU_VERDICT_NOT_APPLICABLE = 2,
  /*
   Neither profile nor policy asks for it.
   */
  CAVEAU_VERDICT_SKIPPED = 3,
} CaveauVerdict;

/*
 Why there is no judgement.
 */
typedef struct CaveauError CaveauError;

/*
 A judgement of evidence.
 */
typedef struct CaveauJudgement CaveauJudgement;

/*
 Bytes of the caller's, which stay theirs. A length of 0 is "none", whatever the pointer.
 */
typedef struct CaveauBytes {
  /*
   The first byte.
   */
  const uint8_t *data;
  /*
   How many.
   */
  size_t length;
} CaveauBytes;

/*
 What evidence is held against. All zeros is a request that expects nothing, under the strict profile, as of now.
 */
typedef struct CaveauRequest {
  /*
   An appraisal policy: JSON or TOML of format `caveau-appraisal-policy/1`. None expects nothing beyond the strict profile.
   */
  struct CaveauBytes policy;
  /*
   The nonce that the evidence must answer.
   */
  struct CaveauBytes nonce;
  /*
   The 64 bytes that its report data must be, where they are used in a way of the caller's own.
   */
  struct CaveauBytes report_data;
  /*
   Files that go with the evidence, in any order: certificates and revocation lists of SEV-SNP, collateral of Intel's, signed
   reference values, keys of tokens' signers.
   */
  const struct CaveauBytes *attachments;
  /*
   How many.
   */
  size_t attachment_count;
  /*
   The time of the judgement in seconds since 1970; 0 is now by the machine's clock.
   */
  uint64_t at;
  /*
   Whether the nonce was asked for over a channel to the guest.
   */
  bool is_session;
} CaveauRequest;

/*
 One check of a judgement. The texts belong to the judgement.
 */
typedef struct CaveauCheck {
  /*
   Its name, for programs.
   */
  const char *name;
  /*
   What it came to.
   */
  enum CaveauVerdict verdict;
  /*
   For programs, why it failed; NULL where it did not.
   */
  const char *code;
  /*
   For people, what was found.
   */
  const char *sentence;
} CaveauCheck;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/*
 Judges evidence of any kind: a report of SEV-SNP, alone or in one of the forms of caveau, ACI and others, evidence of Azure's
 confidential VMs, quotes of TDX and SGX, tokens.

 Gives the judgement, to be freed by `caveau_judgement_free`; evidence that is refused has one. Where there is nothing to judge, or the
 request makes no sense, it gives NULL, and in `*error` why, to be freed by `caveau_error_free`. Any number of threads may call it.

 # Safety
 Pointers in `evidence` and `request` must each be good for so many bytes or entries as are said beside them; `request` and `error`
 must be NULL or good for what they are.
 */
struct CaveauJudgement *caveau_verify(struct CaveauBytes evidence,
                                      const struct CaveauRequest *request,
                                      struct CaveauError **error);

/*
 What a judgement comes to; refused, where it is NULL.

 # Safety
 `judgement` must be NULL or a judgement that was not freed.
 */
enum CaveauOutcome caveau_judgement_outcome(const struct CaveauJudgement *judgement);

/*
 The outcome in words.

 # Safety
 As of [`caveau_judgement_outcome`].
 */
const char *caveau_judgement_summary(const struct CaveauJudgement *judgement);

/*
 The whole judgement as JSON of format `caveau-appraisal/1`, claims included.

 # Safety
 As of [`caveau_judgement_outcome`].
 */
const char *caveau_judgement_json(const struct CaveauJudgement *judgement);

/*
 How many checks were made.

 # Safety
 As of [`caveau_judgement_outcome`].
 */
size_t caveau_judgement_check_count(const struct CaveauJudgement *judgement);

/*
 Writes the check of this number, from 0, into `*check`; false where there is none.

 # Safety
 As of [`caveau_judgement_outcome`]; `check` must be NULL or good for a check.
 */
bool caveau_judgement_check(const struct CaveauJudgement *judgement, size_t number, struct CaveauCheck *check);

/*
 Frees a judgement, with all that it gave.

 # Safety
 As of [`caveau_judgement_outcome`]; it must not be used afterwards.
 */
void caveau_judgement_free(struct CaveauJudgement *judgement);

/*
 What went wrong, and what to do, in words.

 # Safety
 `error` must be NULL or an error that was not freed.
 */
const char *caveau_error_message(const struct CaveauError *error);

/*
 Frees an error, with its message.

 # Safety
 As of [`caveau_error_message`]; it must not be used afterwards.
 */
void caveau_error_free(struct CaveauError *error);

/*
 The library's version, as `0.1.0`. It is never freed.
 */
const char *caveau_version(void);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#endif  /* CAVEAU_VERIFY_H */
