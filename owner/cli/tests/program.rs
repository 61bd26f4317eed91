//! The program as a shell sees it, as far as no group is started.

use std::process::Command;

/// Standard output of `caveau` with these arguments, and its exit code.
fn caveau(arguments: &[&str]) -> (String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_caveau")).args(arguments).output().expect("caveau starts");
    (String::from_utf8(output.stdout).expect("text"), output.status.code())
}

#[test]
fn help_names_every_command_and_hides_its_own_processes() {
    let (help, code) = caveau(&["--help"]);
    assert_eq!(code, Some(0));
    for command in [
        "run",
        "ps",
        "logs",
        "exec",
        "stop",
        "rm",
        "inspect",
        "stats",
        "policy",
        "fragment",
        "attest",
        "verify",
        "measure",
        "guest",
        "image",
        "layer",
        "doctor",
        "completions",
    ] {
        assert!(help.contains(&format!("\n  {command} ")), "{command} is not in {help}");
        assert_eq!(caveau(&[command, "--help"]).1, Some(0), "{command}");
    }
    assert!(!help.contains("__supervise") && !help.contains("__softsp"), "{help}");
}

#[test]
fn completions_are_scripts_of_their_shell() {
    for (shell, word) in [("bash", "complete"), ("zsh", "#compdef caveau"), ("fish", "complete -c caveau")] {
        let (script, code) = caveau(&["completions", shell]);
        assert!(code == Some(0) && script.contains(word), "{shell}");
    }
}

#[test]
fn wrong_usage_ends_with_two_and_as_under_docker() {
    for arguments in [&["frobnicate"][..], &["stop"], &["policy"], &["verify", "--cpus", "many", "x"], &["ps", "--run"]]
    {
        assert_eq!(caveau(arguments).1, Some(2), "{arguments:?}");
    }
    for arguments in [&["run"][..], &["run", "--nothing"], &["--quiet", "run"], &["exec", "x"], &["run", "-p"]] {
        assert_eq!(caveau(arguments).1, Some(125), "{arguments:?}");
    }
}
