//! Terminals: `run -it` and `exec -it`, with sizes, keys, exit codes, and what appears on a terminal only.

use caveau_tests::{Caveau, image, terminal::Terminal};

#[test]
fn a_shell_at_a_terminal() {
    let Some(caveau) = Caveau::new() else { return };
    let exec = "sh -c 'test -t 0 && stty size; read word; echo got-$word; exit 3'";
    let busybox = image("busybox");
    let arguments = ["run", "-it", "--rm", "--name", "term", "--allow-exec", exec, &busybox, "--", "sh"];
    let mut shell = Terminal::start(&caveau, &arguments, 31, 97);
    // Sums, since what is typed is echoed.
    shell.types("echo ready-$((40 + 2))\n");
    shell.shows("ready-42");
    assert!(shell.printed().contains("starting the VM"), "a terminal is shown progress: {:?}", shell.printed());
    assert!(!shell.is_cooked(), "keys go to the container as they are typed");

    shell.types("test -t 0 -a -t 1 && tty && stty size\n");
    shell.shows("31 97");
    shell.resize(43, 79);
    shell.types("sleep 1; stty size\n");
    shell.shows("43 79");

    // Control-C is a key of the container's terminal, not a signal to the client.
    // The shell reads keys by itself until the command runs.
    shell.types("sh -c 'echo run''ning; sleep 1000' && echo sle''pt\n");
    shell.shows("running");
    shell.types("\u{3}");
    shell.types("echo awake-$((1 + 1)) $TERM\n");
    shell.shows("awake-2 xterm");

    // One more process at a terminal of another size, which it has from its start.
    let command = ["exec", "-it", "term", "sh", "-c", "test -t 0 && stty size; read word; echo got-$word; exit 3"];
    let mut other = Terminal::start(&caveau, &command, 11, 53);
    other.shows("11 53");
    other.types("it\n");
    other.shows("got-it");
    assert_eq!(other.ends(), 3);
    assert!(other.is_cooked(), "the terminal is as it was");

    // Without a terminal asked for, there is none.
    let piped = caveau.run_with_input(&["exec", "-i", "term", "sh", "-c", command[5]], b"piped\n").expect_code(3);
    assert_eq!(piped.stdout, "got-piped\n");

    shell.types("exit 9\n");
    assert_eq!(shell.ends(), 9);
    assert!(shell.is_cooked(), "the terminal is as it was");
    assert!(!shell.printed().contains("slept"), "{:?}", shell.printed());
    assert!(caveau.groups().is_empty());
}

#[test]
fn colours_and_progress_are_for_terminals() {
    let Some(caveau) = Caveau::new() else { return };
    let mut terminal = Terminal::start(&caveau, &["doctor"], 24, 200);
    assert_eq!(terminal.ends(), 0, "{}", terminal.printed());
    terminal.shows("\u{1b}[32mok");
    let piped = caveau.run(&["doctor"]).success();
    assert!(piped.stdout.contains("ok ") && !piped.stdout.contains('\u{1b}'), "{}", piped.stdout);

    let cache = tempfile::tempdir().expect("a folder");
    let pull = ["image", "pull", &image("busybox")];
    let output = caveau.command(&pull).env("XDG_CACHE_HOME", cache.path()).output().expect("caveau runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
    let fresh = Caveau::with_an_empty_cache().expect("the machine is set up");
    let mut terminal = Terminal::start(&fresh, &pull, 24, 200);
    assert_eq!(terminal.ends(), 0, "{}", terminal.printed());
    terminal.shows(": 1 layer");
    // The layer's bar, at its end.
    terminal.shows(&format!("[{}]", "=".repeat(30)));
    terminal.shows("converted");
}
