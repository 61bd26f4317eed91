//! A group's owner talks to the guest itself: the host carries it, and sees none of it.

use caveau_tests::{Caveau, Outcome, eventually, free_port, guest_folder, image};

const NONCE: &str = "00112233445566778899aabbccddeeff";

/// What an owner does with a group, and what others may not.
struct Setting {
    caveau: Caveau,
    folder: tempfile::TempDir,
    port: String,
    policy: String,
    root: String,
}

impl Setting {
    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    /// What every verifier brings.
    fn expected<'a>(&'a self, reference: &'a str) -> [&'a str; 8] {
        ["--policy", &self.policy, "--reference", reference, "--cpus", "1", "--allow-emulated", &self.root]
    }

    /// `caveau owner COMMAND` with somebody's key.
    fn owner(&self, command: &str, key: &str, more: &[&str], input: &[u8]) -> Outcome {
        let reference = guest_folder().join("guest.json").display().to_string();
        let key = format!("{}/signer.key", self.path(key));
        let given = ["owner", command, "--connect", &self.port, "--key", &key];
        self.caveau.run_with_input(&[&given[..], &self.expected(&reference), more].concat(), input)
    }
}

#[test]
fn an_owner_sees_what_the_host_does_not() {
    let Some(caveau) = Caveau::new() else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let root = caveau.run(&["doctor", "--json"]).json()["emulated_root"].as_str().map(str::to_owned).expect("a root");
    let policy = folder.path().join("policy.rego").display().to_string();
    let setting = Setting { port: free_port().to_string(), policy, root, caveau, folder };
    let caveau = &setting.caveau;
    for who in ["mine", "auditors", "strangers"] {
        caveau.run(&["fragment", "chain", &setting.path(who)]).success();
    }
    let mine = format!("{}/signer.key", setting.path("mine"));
    let auditors = caveau.run(&["owner", "key", &format!("{}/signer.key", setting.path("auditors"))]).success().stdout;
    let auditors = format!("{}=denials", auditors.trim());
    let script = "echo sealed; echo aside >&2; exec sleep 600";
    let busybox = image("busybox");
    let options = ["--no-stdio", "--owner", &mine, "--owner", &auditors, busybox.as_str(), "--", "sh", "-c", script];
    let text = caveau.run(&[&["policy", "generate"][..], &options].concat()).success().stdout;
    std::fs::write(&setting.policy, text).expect("the policy is written");

    // Where the start itself is denied, the guest stays for whoever may ask why.
    let denied = ["run", "-d", "--name", "denied", "--policy", &setting.policy, "--owner-port", &setting.port];
    let denied = caveau.run(&[&denied[..], &options[..6], &["--", "/bin/false"]].concat()).expect_code(125);
    assert!(denied.stderr.contains("its owners may ask it why"), "{denied:?}");
    let why = setting.owner("denials", "auditors", &["--json"], b"").success().stdout;
    let why: serde_json::Value = serde_json::from_str(why.lines().next().expect("a line")).expect("JSON");
    assert_eq!(why["point"], "create_container", "{why}");
    assert!(why["change"].is_object() || why["change"].is_array(), "with what would allow it: {why}");
    assert!(caveau.run(&["ps", "-a"]).success().stdout.contains("failed"));
    caveau.run(&["rm", "denied"]).success();
    assert!(setting.owner("denials", "auditors", &[], b"").code != 0, "nobody is there any more");

    let run = ["run", "--detach", "--name", "mine", "--owner-port", &setting.port];
    caveau.run(&[&run[..], &options].concat()).success();

    // The owner reads what was written, and the host has nothing of it.
    let logs = eventually(|| {
        let logs = setting.owner("logs", "mine", &[], b"").success();
        let whole = logs.stdout.contains("sealed") && logs.stderr.contains("aside");
        whole.then_some(logs).ok_or_else(|| anyhow::anyhow!("nothing was written yet"))
    });
    assert_eq!(logs.expect("the container writes").stdout, "sealed\n");
    assert_eq!(caveau.run(&["logs", "mine"]).success().stdout, "");

    // It runs programs, with their streams and codes.
    let exec = |key: &str, flags: &[&str], command: &[&str], input: &[u8]| {
        setting.owner("exec", key, &[flags, &["--"], command].concat(), input)
    };
    assert_eq!(exec("mine", &[], &["sh", "-c", "echo hello; exit 3"], b"").expect_code(3).stdout, "hello\n");
    let long: Vec<u8> = (0..400_000u32).map(|i| b'a' + (i % 23) as u8).collect();
    assert_eq!(exec("mine", &["-i"], &["cat"], &long).success().stdout.as_bytes(), long);
    exec("mine", &[], &["/no/such/program"], b"").expect_code(127);
    let who = ["--user", "12:34", "--workdir", "/tmp", "-e", "A=b"];
    assert_eq!(exec("mine", &who, &["sh", "-c", "id -u; pwd; echo $A"], b"").success().stdout, "12\n/tmp\nb\n");

    // It copies files, by the `tar` of the container.
    let cp = |source: &str, target: &str| setting.owner("cp", "mine", &[source, target], b"");
    let (there, back) = (setting.path("there"), setting.path("back"));
    std::fs::create_dir(&there).expect("a folder");
    std::fs::write(format!("{there}/long"), &long).expect("a file");
    std::fs::write(format!("{there}/empty"), b"").expect("a file");
    cp(&there, ":/srv-of-mine").success();
    assert_eq!(
        exec("mine", &[], &["wc", "-c", "/srv-of-mine/long"], b"").success().stdout,
        "400000 /srv-of-mine/long\n"
    );
    cp(":/srv-of-mine", &back).success();
    assert_eq!(std::fs::read(format!("{back}/long")).expect("it came back"), long);
    assert_eq!(std::fs::read(format!("{back}/empty")).expect("it came back"), b"");
    let absent = cp(":/no/such/file", &setting.path("nothing"));
    assert!(absent.code != 0 && absent.stderr.contains("No such file"), "{absent:?}");
    assert!(!std::path::Path::new(&setting.path("nothing")).exists(), "half a copy stays");
    let refused = setting.owner("cp", "auditors", &[":/etc/passwd", &setting.path("nothing")], b"");
    assert!(refused.code != 0 && refused.stderr.contains("no right to"), "{refused:?}");

    // What the host is refused, the owners read whole.
    caveau.run(&["exec", "mine", "/bin/true"]).expect_code(125);
    for who in ["mine", "auditors"] {
        let denials = setting.owner("denials", who, &["--json"], b"").success().stdout;
        let denial: serde_json::Value = serde_json::from_str(denials.lines().next().expect("a line")).expect("JSON");
        assert_eq!((&denial["point"], &denial["number"]), (&"exec_in_container".into(), &1.into()), "{denial}");
        assert!(denial["change"].is_object() || denial["change"].is_array(), "with what would allow it: {denial}");
    }
    assert!(setting.owner("denials", "mine", &[], b"").success().stdout.contains("exec_in_container denied"));

    // A right is what the policy gives, to whom it gives it.
    for (command, who, more) in [
        ("logs", "auditors", &[][..]),
        ("logs", "strangers", &[]),
        ("denials", "strangers", &[]),
        ("exec", "auditors", &["--", "/bin/true"]),
        ("exec", "strangers", &["--", "/bin/true"]),
    ] {
        let refused = setting.owner(command, who, more, b"");
        assert!(refused.code != 0 && refused.stderr.contains("no right to"), "{who} {command}: {refused:?}");
    }

    // Evidence of a session is no evidence for a challenge, nor the other way round.
    let reference = guest_folder().join("guest.json").display().to_string();
    let verify = |file: &str, more: &[&str]| {
        let given = ["verify", file, "--nonce", NONCE, "--json"];
        caveau.run(&[&given[..], &setting.expected(&reference), more].concat())
    };
    let (session, challenge) = (setting.path("session.json"), setting.path("challenge.json"));
    caveau.run(&["attest", "--connect", &setting.port, "--nonce", NONCE, "-o", &session]).success();
    caveau.run(&["attest", "mine", "--nonce", NONCE, "-o", &challenge]).success();
    verify(&session, &["--session"]).success();
    verify(&challenge, &[]).success();
    for (file, more) in [(&session, &[][..]), (&challenge, &["--session"])] {
        let judged = verify(file, more).expect_code(1).json();
        let codes: Vec<_> =
            judged["checks"].as_array().expect("checks").iter().filter_map(|c| c["code"].as_str()).collect();
        assert_eq!(codes, ["report-data"], "{judged}");
    }

    // Nothing is said to a guest that is another than was expected.
    let other = format!("{}\n", std::fs::read_to_string(&setting.policy).expect("the policy"));
    std::fs::write(&setting.policy, other).expect("written");
    let refused = setting.owner("logs", "mine", &[], b"").expect_code(1);
    assert!(refused.stdout.is_empty() && refused.stderr.contains("nothing was asked of it"), "{refused:?}");
    exec("mine", &[], &["/bin/true"], b"").expect_code(125);
    caveau.run(&["rm", "--force", "mine"]).success();
}
