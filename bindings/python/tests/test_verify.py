"""The package as its users have it: a wheel, installed. Run by `cargo xtask test`; by hand: python -m unittest discover tests."""

import json
import os
import threading
import unittest
from datetime import datetime, timezone
from pathlib import Path

import caveau_evidence
from caveau_evidence import Outcome, Verdict, VerifyError, verify

HERE = Path(__file__).resolve()
FIXTURES = Path(os.environ.get("CAVEAU_FIXTURES", HERE.parents[4] / "shared/fixtures")) / "attestation"
BASELINE = {"format": "caveau-appraisal-policy/1", "profile": "baseline"}
THEN = datetime(2026, 11, 23, 12, tzinfo=timezone.utc)


def cases(kind):
    found = json.loads((FIXTURES / "cases.json").read_text())["cases"]
    return [case for case in found if case["kind"] == kind]


def read(name):
    return (FIXTURES / name).read_bytes()


@unittest.skipUnless(FIXTURES.is_dir(), f"no fixtures at {FIXTURES}")
class Recorded(unittest.TestCase):
    def setUp(self):
        self.case = next(case for case in cases("snp-report") if case["id"] == "snp/milan-v3-aci")
        self.report, self.vek = read(self.case["report"]), read(self.case["vek"])

    def test_reports(self):
        for case in cases("snp-report"):
            certificates = [read(case[name]) for name in ("root", "vek", "intermediate")]
            for date, expected in case["authentic"].items():
                at = datetime.fromisoformat(f"{date}T12:00:00+00:00")
                judgement = verify(read(case["report"]), BASELINE, attachments=certificates, at=at)
                self.assertEqual(judgement.claims is not None, expected == "ok", (case["id"], judgement.failures()))
                self.assertEqual((judgement.kind, judgement.at, judgement.profile), ("snp-report", at, "baseline"))

    def test_quotes(self):
        for case in cases("dcap"):
            quote, collateral = read(case["quote"]), read(case["collateral"])
            judgement = verify(quote, BASELINE, attachments=[collateral], at=case["unix_time"])
            refused = case["expect"].startswith("error: ")
            self.assertEqual(judgement.outcome is Outcome.REFUSED, refused, (case["id"], judgement.failures()))

    def test_expectations_decide(self):
        bare = verify(self.report, BASELINE, attachments=[self.vek], at=THEN)
        self.assertIs(bare.outcome, Outcome.AUTHENTIC_NOT_APPRAISED)
        self.assertFalse(bare, "authentic is not yet a pass")
        self.assertEqual(json.loads(bare.json)["summary"], bare.summary)
        claims = bare.claims
        guest = {"measurements": [claims["measurement"]], "policy_digest": claims["host_data"]}
        data = bytes.fromhex(claims["report_data"])
        right = verify(self.report, {**BASELINE, "guest": guest}, report_data=data, attachments=[self.vek], at=THEN)
        self.assertIs(right.outcome, Outcome.PASSED, right.failures())
        self.assertTrue(right)
        self.assertEqual(right.tee_class, "hardware")
        guest["measurements"] = ["00" * 48]
        wrong = verify(self.report, json.dumps({**BASELINE, "guest": guest}), attachments=[self.vek], at=THEN)
        self.assertEqual([check.code for check in wrong.failures()], ["measurement"])
        self.assertTrue(all(check.verdict is Verdict.FAILED and check.sentence for check in wrong.failures()))

    def test_lies_are_refused(self):
        changed = bytearray(self.report)
        changed[0x90] ^= 1
        judgement = verify(bytes(changed), BASELINE, attachments=[self.vek], at=THEN)
        self.assertIs(judgement.outcome, Outcome.REFUSED)
        self.assertIn("report-signature", [check.code for check in judgement.failures()])
        self.assertIsNone(judgement.claims)
        strict = verify(self.report, attachments=[self.vek], at=THEN)
        self.assertIn("crl-missing", [check.code for check in strict.failures()])

    def test_what_makes_no_sense_is_an_error(self):
        for arguments, word in [
            ({"policy": b"{}"}, "appraisal policy"),
            ({"report_data": b"short"}, "5 bytes"),
            ({"nonce": b"n" * 32, "report_data": b"d" * 64}, "give one of them"),
            ({"attachments": [b"nonsense"]}, "file 1"),
            ({"at": datetime(2026, 1, 1)}, "no time zone"),
        ]:
            with self.assertRaisesRegex(VerifyError, word):
                verify(self.report, **arguments)

    def test_threads(self):
        found = []

        def judge():
            found.extend(verify(self.report, BASELINE, attachments=[self.vek], at=THEN).outcome for _ in range(20))

        threads = [threading.Thread(target=judge) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(found, [Outcome.AUTHENTIC_NOT_APPRAISED] * 80)


class Anything(unittest.TestCase):
    def test_nonsense_is_an_error(self):
        for evidence in (b"", b"hello", b"{}", b"\0" * 1184):
            try:
                self.assertIs(verify(evidence).outcome, Outcome.REFUSED)
            except VerifyError as error:
                self.assertIn("evidence", str(error))
        with self.assertRaises(TypeError):
            verify("text")

    def test_the_version_is_told(self):
        self.assertRegex(caveau_evidence.__version__, r"^\d+\.\d+\.\d+$")


if __name__ == "__main__":
    unittest.main()
