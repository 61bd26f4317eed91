//! The host offers another secure processor than the guest's command line names.

use caveau_tests::{guest_folder, hostile::Hostile};

#[test]
fn the_emulated_processor_for_a_guest_that_was_told_snp() {
    let Some(host) = Hostile::new() else { return };
    let cmdline = guest_folder().join("cmdline.snp");
    host.fails(&["this guest is made for snp, but the machine shows no SEV-SNP"], |plan| {
        plan.guest.cmdline = cmdline;
        plan.start_timeout_s = 60;
    });
}

#[test]
fn a_guest_without_a_word_about_its_tee() {
    let Some(host) = Hostile::new() else { return };
    let cmdline = host.forged("cmdline", b"console=ttyS0 quiet panic=-1 reboot=t");
    host.fails(&["has no caveau.tee=snp or caveau.tee=emulated-snp"], |plan| {
        plan.guest.cmdline = cmdline;
        plan.start_timeout_s = 60;
    });
}
