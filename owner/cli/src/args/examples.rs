//! Examples for each command's help. The test beside [`super::Cli`] parses every line of them.

/// `caveau`.
pub(super) const CAVEAU: &str = "Examples:
  caveau run -p 8080:80 docker.io/library/nginx            run an image, its port 80 on 127.0.0.1:8080
  caveau run -d --name db redis                            in the background
  caveau attest db --nonce $(openssl rand -hex 32) > ev.json
  caveau verify ev.json --nonce … --policy db.rego --reference guest.json --cpus 1

Exit codes: 0 done, 1 refused (verify) or not able (doctor), 2 wrong usage or failure. run and exec end with the
container's own code, and with 125 (Caveau or the policy says no), 126 (cannot be executed) or 127 (not found), as Docker does.";

/// `caveau run`.
pub(super) const RUN: &str = "Examples:
  caveau run oci:./nginx -- nginx -g 'daemon off;'
  caveau run -d --name web -p 8080:80 --memory 512M nginx
  caveau run --allow-exec 'redis-cli info' -d --name db redis
  caveau run --policy web.rego nginx                       under a policy that was made before
  caveau run -p 8080:80 --restrict-network --allow-connect dns nginx

Options of the container and of the policy stand in the policy. `caveau policy generate` takes the same ones: give both
commands the same, or the guest denies what differs.";

/// `caveau ps`.
pub(super) const PS: &str = "Examples:
  caveau ps                                                what runs, what failed and what was lost
  caveau ps -a --json                                      what has ended too, for programs";

/// `caveau logs`.
pub(super) const LOGS: &str = "Examples:
  caveau logs db --tail 20
  caveau logs -f -t web                                    follow it, with times";

/// `caveau exec`.
pub(super) const EXEC: &str = "Examples:
  caveau exec db redis-cli info
  caveau exec -it web sh

The command must have been allowed when the group was started: caveau run --allow-exec 'COMMAND'.";

/// `caveau stop`.
pub(super) const STOP: &str = "Examples:
  caveau stop web
  caveau stop -t 60 db web                                 a minute for each before SIGKILL";

/// `caveau rm`.
pub(super) const RM: &str = "Examples:
  caveau rm web
  caveau rm -f db web                                      stop them first";

/// `caveau inspect`.
pub(super) const INSPECT: &str = "Examples:
  caveau inspect db                                        its state, its launch digest, how it was started, as JSON";

/// `caveau stats`.
pub(super) const STATS: &str = "Examples:
  caveau stats db
  caveau stats db --json";

/// `caveau policy`.
pub(super) const POLICY: &str = "Examples:
  caveau policy generate nginx > web.rego
  caveau policy check web.rego
  caveau policy diff old.rego web.rego";

/// `caveau policy generate`.
pub(super) const POLICY_GENERATE: &str = "Examples:
  caveau policy generate nginx > web.rego
  caveau policy generate --allow-exec 'redis-cli info' --read-only redis > db.rego
  caveau policy generate -p 8080:80 --restrict-network --container-memory 128M nginx > web.rego

What the policy leaves open is said on standard error.";

/// `caveau policy digest`.
pub(super) const POLICY_DIGEST: &str = "Examples:
  caveau policy digest web.rego";

/// `caveau policy check`.
pub(super) const POLICY_CHECK: &str = "Examples:
  caveau policy check web.rego
  caveau policy check --deny high template.json            refuse what opens the group to the host
  caveau policy check --allow stdio --deny note web.rego
  caveau policy check --list                               every lint and what it means

Exit codes: 0 nothing of --deny's severity or above, 1 something of it, 2 no policy, or wrong usage.";

/// `caveau policy explain`.
pub(super) const POLICY_EXPLAIN: &str = "Examples:
  caveau policy explain web.rego
  caveau policy explain template.json --json               each group of an ARM template

Exit codes: 0 done, 2 no policy, or wrong usage.";

/// `caveau policy diff`.
pub(super) const POLICY_DIFF: &str = "Examples:
  caveau policy diff old.rego web.rego
  caveau policy diff template.json web.rego                the template's only group against a policy
  caveau policy diff old.json new.json                     templates: groups of the same name

Order and layout are no difference. Exit codes: 0 the same, 1 different, 2 no policy, or wrong usage.";

/// `caveau policy convert`.
pub(super) const POLICY_CONVERT: &str = "Examples:
  caveau policy convert web.rego --to base64               for ccePolicy of a template
  caveau policy convert template.json --to raw > web.rego
  caveau policy convert web.rego --to pretty > laid-out.rego
  caveau policy convert web.rego --to digest

Exit codes: 0 done, 2 no policy, or wrong usage.";

/// `caveau policy replay`.
pub(super) const POLICY_REPLAY: &str = "Examples:
  caveau policy replay web.rego requests.jsonl
  caveau policy replay web.rego requests.jsonl --amend better.rego --only 7
  caveau policy replay web.rego requests.jsonl --json      a line for each request
  caveau policy replay --corpus mount.jsonl.gz container.jsonl.gz > decisions.jsonl

Exit codes: 0 all is allowed (with --amend: by the policy that was written), 1 something is denied, 2 failure.

With --corpus, standard output has a line for each decision, in the files' order:
  {\"s\":…,\"n\":…,\"rule\":…,\"allowed\":…,\"env_list\":…,\"caps_list\":…,\"allow_stdio_access\":…,\"metadata\":…}
  s is the session, n the line within it: the line that starts the session is 0, and every line of the session counts.
  A field is null where the rule does not say it. add_module, parameters and allowed_ledgers are there where the rule
  says them, and error where it cannot be evaluated.
Standard error has each decision that differs from the recorded one, what was assumed because the record lacks it,
and last \"N of M decisions agree\", M being the lines that hold a result.
Exit codes: 0 where M is not 0 and all agree, 1 where one differs or no line holds a result, 2 where a file cannot be read.";

/// `caveau fragment`.
pub(super) const FRAGMENT: &str = "Examples:
  caveau fragment generate nginx -n web > web.rego
  caveau fragment chain keys                               a key and certificates to try it with
  caveau fragment sign web.rego --key keys/signer.key --chain keys/chain.pem --feed example.org/web
  caveau fragment inspect web.rego.cose
  caveau fragment attach registry.example.org/web:1 web.rego.cose";

/// `caveau fragment generate`.
pub(super) const FRAGMENT_GENERATE: &str = "Examples:
  caveau fragment generate nginx --namespace web --svn 2 > web.rego
  caveau fragment generate oci:./nginx -n web --read-only > web.rego
  caveau fragment generate --policy web-policy.rego -n web > web.rego";

/// `caveau fragment chain`.
pub(super) const FRAGMENT_CHAIN: &str = "Examples:
  caveau fragment chain keys                               prints the signer's name for policies
  caveau fragment chain keys --name 'Web team' --key-type ed25519 --days 30";

/// `caveau fragment sign`.
pub(super) const FRAGMENT_SIGN: &str = "Examples:
  caveau fragment sign web.rego --key keys/signer.key --chain keys/chain.pem --feed example.org/web
  caveau fragment sign web.rego --key keys/signer.key --chain keys/chain.pem --feed example.org/web --form claims
  caveau fragment sign web.rego --pkcs11 'pkcs11:token=web;object=signer' --chain keys/chain.pem --feed example.org/web

What is printed goes into the list `fragments` of the policy that shall take the fragment.";

/// `caveau fragment inspect`.
pub(super) const FRAGMENT_INSPECT: &str = "Examples:
  caveau fragment inspect web.rego.cose
  caveau fragment inspect web.rego.cose --feed example.org/web --minimum-svn 2 --json
  caveau fragment inspect web.rego.cose --content > web.rego

The exit code is 1 where the signature does not hold, the issuer does not name the signer, or something else was expected.";

/// `caveau fragment attach`.
pub(super) const FRAGMENT_ATTACH: &str = "Examples:
  caveau fragment attach registry.example.org/web:1 web.rego.cose
  caveau fragment attach registry.example.org/web:1 web.rego.cose --platform linux/arm64";

/// `caveau fragment discover`.
pub(super) const FRAGMENT_DISCOVER: &str = "Examples:
  caveau fragment discover registry.example.org/web:1
  caveau fragment discover registry.example.org/web:1 -o fragments --json";

/// `caveau attest`.
pub(super) const ATTEST: &str = "Examples:
  caveau attest db --nonce $(openssl rand -hex 32) -o ev.json
  caveau attest db --nonce … -o ev.json --fetch-certificates     ask AMD for what the host did not offer
  caveau attest db --nonce … -o ev.json --events                 with what the guest did so far; verify shows it
  caveau attest --connect host:7443 --nonce … -o ev.json         ask the guest itself; then verify it with --session

Nothing is fetched unless asked for. What was fetched once is kept, and is judged by verify alone.";

/// `caveau owner`.
pub(super) const OWNER: &str = "Examples:
  caveau owner key me.pem
  caveau owner logs --connect 7443 --key me.pem --policy db.rego --reference guest.json --cpus 1 --allow-emulated root.pem
  caveau owner exec --connect host:7443 --key me.pem --policy db.rego --reference guest.json --cpus 1 -- cat /etc/passwd

The group is run with --owner me.pem and --owner-port 7443; a key is made with openssl genpkey -algorithm ed25519 -out me.pem.
Before anything is asked, the guest proves what it is, for this very session, and is held against your expectations as by
verify: unless it passes, nothing is said to it.";

/// `caveau owner key`.
pub(super) const OWNER_KEY: &str = "Examples:
  caveau owner key me.pem                        what stands in the policy, as caveau.owners[].key
  caveau owner key me.pub                        the same of the public key alone

openssl pkey -in me.pem -pubout -out me.pub writes that.";

/// `caveau owner denials`.
pub(super) const OWNER_DENIALS: &str = "Examples:
  caveau owner denials --connect host:7443 --key me.pem --policy db.rego --reference guest.json --cpus 1
  caveau owner denials --connect host:7443 --key me.pem --appraisal appraisal.json --json

With --json a line each, with the change of the policy that would allow it.";

/// `caveau owner logs`.
pub(super) const OWNER_LOGS: &str = "Examples:
  caveau owner logs --connect host:7443 --key me.pem --policy db.rego --reference guest.json --cpus 1
  caveau owner logs --follow --connect host:7443 --key me.pem --policy db.rego --reference guest.json --cpus 1";

/// `caveau owner exec`.
pub(super) const OWNER_EXEC: &str = "Examples:
  caveau owner exec --connect host:7443 --key me.pem --policy db.rego --reference guest.json --cpus 1 -- cat /etc/passwd
  caveau owner exec -it --connect host:7443 --key me.pem --policy db.rego --reference guest.json --cpus 1 -- /bin/sh

It exits with the program's code; with 125, 126 and 127 as exec does.";

/// `caveau owner cp`.
pub(super) const OWNER_CP: &str = "Examples:
  caveau owner cp --connect host:7443 --key me.pem --policy db.rego --reference guest.json --cpus 1 :/var/lib/db/dump ./dump
  caveau owner cp --connect host:7443 --key me.pem --policy db.rego --reference guest.json --cpus 1 ./secrets :/run/secrets

It takes the right to exec, and `tar` in the container. What comes out is checked: files and folders below what was asked for, and
nothing else.";

/// `caveau verify`.
pub(super) const VERIFY: &str = "Examples:
  caveau verify ev.json --nonce … --policy db.rego --reference guest.json --cpus 1
  caveau verify ev.json --nonce … --policy db.rego --reference guest.json --cpus 1 --chip … --fetch-certificates
  caveau verify --appraisal-example > appraisal.json             then edit it, and give it with --appraisal appraisal.json
  caveau verify ev.json --at 2026-11-23T12:00:00Z --json         authentic at that time?
  caveau verify ev.json --nonce … --policy db.rego --reference guest.json --cpus 1 --html verified.html     for others to read
  caveau verify report.bin                                       a raw report, with vcek.der (or .pem) beside it
  caveau verify quote.bin --collateral collateral.json           a quote of TDX or SGX
  caveau verify token.jwt --token-keys keys.json                 what another verifier found
  caveau verify ev.json --nonce … --policy db.rego --endorsement guest.cose --endorsement-issuer did:x509:… \\
      --endorsement-feed example.org/guest --endorsement-least-svn 3     signed reference values instead of guest.json

FILE may be any evidence: that of a group, a report of SEV-SNP (raw, in hexadecimal or base64, in a bundle of ACI, or field by field
as Confidential Containers have it), evidence of a confidential VM of Azure's, a quote of TDX or SGX, or a token (EAR, MAA). What it
is, is told by its contents. Certificates and collateral are also looked for beside FILE: vcek.der, vlek.der, ask.der, ark.der,
cert_chain.pem, crl.der (also .pem, .crt), host-amd-certs.json, thim-certs.json, collateral.json and FILE's own name with
.collateral.json.

What the evidence is held against comes from you, never from the evidence: nonce, policy, guest.json and the number of processors.
Without any of them genuine evidence is \"authentic, not appraised\" and the exit code is 1.";

/// `caveau measure`.
pub(super) const MEASURE: &str = "Examples:
  caveau measure --cpus 2                                  of the usual guest on the emulated TEE
  caveau measure --tee snp --firmware OVMF.amdsev.fd --cpus 2 --cpu-type EPYC-Genoa
  caveau measure --group web.rego -o web.json              of a group, on each TEE, with each number of processors
  caveau measure --group web.rego --firmware OVMF.amdsev.fd --cpu-type EPYC-Genoa --max-cpus 4 --guest guest/

With --group nothing is started, and no machine that shall be judged is asked: what is computed from is the policy, and the
guest folder that you trust. `caveau verify ev.json --reference web.json` then expects the group's policy without --policy.";

/// `caveau guest`.
pub(super) const GUEST: &str = "Examples:
  caveau guest kernel build --source linux-source-6.12.deb
  caveau guest build --agent caveau-agent
  caveau guest sign --key keys/signer.key --chain keys/chain.pem --feed example.org/guest
  caveau guest inspect
  caveau guest sbom > guest.cdx.json
  caveau guest reproduce guest.json --source caveau/";

/// `caveau guest build`.
pub(super) const GUEST_BUILD: &str = "Examples:
  caveau guest build --agent caveau-agent                  with the kernel that `guest kernel build` made
  caveau guest build --kernel distro --agent caveau-agent -o guest/
  caveau guest build --agent caveau-agent --snp-firmware OVMF.amdsev.fd --svn 2

The same inputs give the same bytes. `cargo xtask setup` does all of it. What the agent's build recorded lies beside the agent
(caveau-agent.json): with it the guest can list its crates (`guest sbom`) and say what it is built again from (`guest reproduce`).";

/// `caveau guest kernel`.
pub(super) const GUEST_KERNEL: &str = "Examples:
  caveau guest kernel build --source linux-source-6.12.deb
  caveau guest kernel options";

/// `caveau guest kernel build`.
pub(super) const GUEST_KERNEL_BUILD: &str = "Examples:
  caveau guest kernel build --source linux-source-6.12.deb
  caveau guest kernel build -j 4 -o kernel/                from /usr/src, once the package is installed

The same sources, options, compiler and linker give the same bytes.";

/// `caveau guest kernel options`.
pub(super) const GUEST_KERNEL_OPTIONS: &str = "Examples:
  caveau guest kernel options";

/// `caveau guest sign`.
pub(super) const GUEST_SIGN: &str = "Examples:
  caveau guest sign --key keys/signer.key --chain keys/chain.pem --feed example.org/guest
  caveau guest sign guest.json --tee emulated-snp --key keys/signer.key --chain keys/chain.pem --feed example.org/guest
  caveau guest sign guest.json --cpus 1 --cpu-type EPYC-Genoa --pkcs11 'pkcs11:token=web;object=signer' \\
      --chain keys/chain.pem --feed example.org/guest -o one.cose

The security version is guest.json's. Verifiers take it by `caveau verify --endorsement FILE --endorsement-issuer DID
--endorsement-feed TEXT --endorsement-least-svn N`. `caveau fragment chain` makes a key to try with.";

/// `caveau guest inspect`.
pub(super) const GUEST_INSPECT: &str = "Examples:
  caveau guest inspect                                     parts, modules and launch digests, after checking the files
  caveau guest inspect --guest guest/ --json";

/// `caveau guest sbom`.
pub(super) const GUEST_SBOM: &str = "Examples:
  caveau guest sbom > guest.cdx.json
  caveau guest sbom guest/ -o guest.cdx.json
  caveau guest sbom guest/guest.json                       the same: what is in the agent lies beside it

In it: the kernel with the package it is built from, its modules, firmware and option ROMs, the agent, each crate and each library
in the agent, and who needs whom. What only compiled the agent is there with scope \"excluded\" and the reason. The same guest gives
the same bytes: there is no time in it, and its serial number follows from its contents.";

/// `caveau guest reproduce`.
pub(super) const GUEST_REPRODUCE: &str = "Examples:
  caveau guest reproduce                                   the installed guest, from the checkout in this folder
  caveau guest reproduce guest.json --source caveau/
  caveau guest reproduce guest.json --source caveau/ --compile-kernel -o again/
  caveau guest reproduce guest.json --rebuilt again/ --json

The agent is compiled from the checkout (check out the commit that guest.json records), the kernel from the recorded package of
sources, or taken from where it was compiled before from the same; firmware is that of the recorded packages. Nothing is installed.

Exit codes: 0 all is the same, byte for byte; 1 something differs or could not be built again; 2 failure, or wrong usage.";

/// `caveau image`.
pub(super) const IMAGE: &str = "Examples:
  caveau image pull docker.io/library/nginx:1.27
  caveau image ls
  caveau image prune --all";

/// `caveau image pull`.
pub(super) const IMAGE_PULL: &str = "Examples:
  caveau image pull docker.io/library/nginx:1.27
  caveau image pull docker-archive:nginx.tar               what `docker save` wrote
  caveau image pull --insecure-registry localhost:5000 localhost:5000/app";

/// `caveau image ls`.
pub(super) const IMAGE_LS: &str = "Examples:
  caveau image ls
  caveau image ls --json";

/// `caveau image rm`.
pub(super) const IMAGE_RM: &str = "Examples:
  caveau image rm docker.io/library/nginx:1.27";

/// `caveau image prune`.
pub(super) const IMAGE_PRUNE: &str = "Examples:
  caveau image prune
  caveau image prune --all";

/// `caveau layer`.
pub(super) const LAYER: &str = "Examples:
  caveau layer hash layer.tar.gz
  caveau layer build layer.tar.gz -o layer.img";

/// `caveau layer hash`.
pub(super) const LAYER_HASH: &str = "Examples:
  caveau layer hash base.tar app.tar.gz                    a line for each: root hash, tab, file";

/// `caveau layer build`.
pub(super) const LAYER_BUILD: &str = "Examples:
  caveau layer build layer.tar.gz -o layer.img";

/// `caveau doctor`.
pub(super) const DOCTOR: &str = "Examples:
  caveau doctor                                            what works here, and how to get what does not
  caveau doctor --firmware OVMF.amdsev.fd                  also whether that is a firmware for SEV-SNP";

/// `caveau completions`.
pub(super) const COMPLETIONS: &str = "Examples:
  caveau completions bash > ~/.local/share/bash-completion/completions/caveau";

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory as _};

    use super::super::Cli;

    /// Every command's help, with the command's own name.
    fn helps(command: &Command, out: &mut Vec<(String, String)>) {
        let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        out.push((command.get_name().to_owned(), help));
        command.get_subcommands().filter(|command| !command.is_hide_set()).for_each(|command| helps(command, out));
    }

    /// The words of an example, as a shell would hand them over: without its comment and redirection, and with something for
    /// what the reader has to fill in.
    fn words(example: &str) -> Vec<String> {
        let command = example.trim().split("   ").next().unwrap_or_default().split(" > ").next().unwrap_or_default();
        let command = command.replace("$(openssl rand -hex 32)", &"0".repeat(64));
        let filled = command.replace("--nonce …", &format!("--nonce {}", "0".repeat(64)));
        let filled = filled.replace("--chip …", &format!("--chip {}", "1".repeat(128)));
        let did = format!("did:x509:0:sha256:{}::eku:1.3.6.1.4.1.311.76.59.1.1", "A".repeat(43));
        let filled = filled.replace("did:x509:…", &did);
        crate::words::split(&filled).expect("shell words")
    }

    #[test]
    fn each_command_has_examples_that_it_takes() {
        let mut all = Vec::new();
        helps(&Cli::command(), &mut all);
        let mut count = 0;
        for (name, help) in &all {
            assert!(help.starts_with("Examples:\n"), "{name} has no examples");
            // An example may go on in the next line.
            let help = help.replace("\\\n      ", "");
            for example in help.lines().skip(1).take_while(|line| !line.is_empty()) {
                assert!(example.starts_with("  caveau ") && example.contains(name.as_str()), "{name}: {example}");
                let parsed = Cli::command().try_get_matches_from(words(example));
                assert!(parsed.is_ok(), "{example}: {}", parsed.unwrap_err());
                count += 1;
            }
        }
        println!("help: {} commands with {count} examples", all.len());
    }
}
