//! What a guest may say over its link.

use std::io::{Read, Write};

use caveau_sp_message::MessageType;
use caveau_sp_message::frame::{GuestFrame, ProcessorFrame};
use caveau_sp_message::report::{KeySelection, ReportRequest, ReportResponse};
use proptest::prelude::*;

use crate::machine::*;

#[test]
fn the_secrets_page_is_handed_out_once() {
    let mut running = Machine::new().launch();
    drop(running.session());
    GuestFrame::Secrets.write(&mut running.link).unwrap();
    assert_eq!(running.link.read(&mut [0; 1]).unwrap(), 0, "the link is closed");
    assert!(running.end().unwrap_err().contains("a second time"));
}

#[test]
fn refused_messages_get_the_firmwares_status() {
    let mut running = Machine::new().launch();
    let mut session = running.session();
    let request = ReportRequest { report_data: [1; 64], vmpl: 0, key: KeySelection::Vlek };
    let message = session.seal(MessageType::ReportRequest, 1, &request.to_bytes()).unwrap();
    let mut changed = message.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut status = |message: Vec<u8>| match running.exchange(&GuestFrame::Request(message)) {
        ProcessorFrame::Response { exit_info, message } => (exit_info.firmware, message),
        other => panic!("{other:?}"),
    };
    assert_eq!(status(vec![0; 50]).0, 0x16, "no message at all");
    assert_eq!(status(changed).0, 0xb, "another tag");
    let (done, answer) = status(message.clone());
    assert_eq!(done, 0);
    let answer = session.open(MessageType::ReportRequest, &answer).unwrap();
    assert_eq!(ReportResponse::parse(&answer.payload).unwrap().status, caveau_sp_message::Status::InvalidKeySelection);
    assert_eq!(status(message).0, 0x16, "a replay");
    let response = session.seal(MessageType::ReportResponse, 1, &[]).unwrap();
    assert_eq!(status(response).0, 0x16, "no request");
    running.end().unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbage_on_the_link_is_answered_or_ends_it(
        frames in proptest::collection::vec((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..200)), 1..6),
    ) {
        let running = Machine::new().launch();
        let mut writer = running.link.try_clone().unwrap();
        for (framed, bytes) in frames {
            // Half of them pass the framing and reach the message layer.
            let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
            let sent = if framed { writer.write_all(&length).and_then(|()| writer.write_all(&bytes)) } else { writer.write_all(&bytes) };
            if sent.is_err() {
                break;
            }
        }
        // Both fail where the processor has hung up already, with bytes of ours unread.
        drop(writer.shutdown(std::net::Shutdown::Write));
        drop((&running.link).take(1 << 20).read_to_end(&mut Vec::new()));
        drop(running.link);
        // It ended by itself, without a panic.
        drop(running.processor.join().unwrap());
    }
}
