//! Messages between host, guest and secure processor.

use std::fmt::Debug;

use caveau_protocol::{
    AgentReply, AgentRequest, Frame, ReplyEnvelope, RequestEnvelope, VERSION, read_frame, write_frame,
};
use caveau_sp_message::frame::{ExitInfo, GuestFrame, ProcessorFrame};
use caveau_sp_message::key::{KeyFields, KeyRequest, KeyResponse, RootKey};
use caveau_sp_message::report::{KeySelection, ReportRequest, ReportResponse};
use caveau_sp_message::{GuestSession, Header, MessageType, ProcessorSession, SecretsPage, Status};

use crate::Target;

/// Frames at the agent's port, in both directions.
pub(crate) const PROTOCOL_FRAME: Target =
    Target { name: "protocol_frame", run: protocol_frame, seeds: protocol_frames, fixtures: &[], rounds: 4000 };

/// Frames at the emulated processor's port, in both directions.
pub(crate) const SP_FRAME: Target =
    Target { name: "sp_frame", run: sp_frame, seeds: sp_frames, fixtures: &[], rounds: 4000 };

/// Guest messages, and payloads as both sides find them once a message was authentic.
pub(crate) const SP_MESSAGE: Target =
    Target { name: "sp_message", run: sp_message, seeds: sp_messages, fixtures: &[], rounds: 2000 };

fn protocol_frame(data: &[u8]) {
    let mut stream = data;
    while let Ok(Some(frame)) = read_frame(&mut stream) {
        let mut written = Vec::new();
        write_frame(&mut written, &frame).expect("what was read can be written");
        assert_eq!(read_frame(&mut written.as_slice()).expect("what was written can be read"), Some(frame.clone()));
        same_again::<RequestEnvelope>(&frame);
        same_again::<ReplyEnvelope>(&frame);
    }
}

/// A header that is accepted is written and read back the same.
fn same_again<T: serde::de::DeserializeOwned + serde::Serialize + PartialEq + Debug>(frame: &Frame) {
    if let Ok(header) = frame.header::<T>() {
        let again = Frame::new(&header, Vec::new()).expect("what was read can be written");
        assert_eq!(again.header::<T>().expect("what was written can be read"), header);
    }
}

fn protocol_frames() -> Vec<Vec<u8>> {
    let container = "ab".repeat(32);
    let requests = [
        r#"{"op":"hello"}"#.to_owned(),
        r#"{"op":"attest","args":{"nonce":"000102030405060708090a0b0c0d0e0f"}}"#.to_owned(),
        format!(r#"{{"op":"delete_container","args":{{"container":"{container}"}}}}"#),
        r#"{"op":"next_event","args":{"after":1,"timeout_ms":5}}"#.to_owned(),
        format!(
            r#"{{"op":"read_output","args":{{"process":{{"container":"{container}","exec":0}},"stream":"stdout","max":9,"timeout_ms":5}}}}"#
        ),
    ];
    let mut seeds: Vec<_> = requests
        .iter()
        .map(|request| framed(format!(r#"{{"version":{VERSION},"id":1,"request":{request}}}"#).as_bytes(), b"body"))
        .collect();
    let hello = RequestEnvelope { version: VERSION, id: 7, request: AgentRequest::Hello };
    let done = ReplyEnvelope { version: VERSION, id: 7, result: Ok(AgentReply::Done) };
    let mut both = Vec::new();
    for frame in [Frame::new(&hello, Vec::new()), Frame::new(&done, vec![9; 40])] {
        write_frame(&mut both, &frame.expect("a seed is small")).expect("memory takes it");
    }
    seeds.push(both);
    seeds
}

/// One frame.
pub(crate) fn framed(header: &[u8], body: &[u8]) -> Vec<u8> {
    let length = |bytes: &[u8]| u32::try_from(bytes.len()).expect("short").to_le_bytes();
    [&length(header)[..], &length(body), header, body].concat()
}

fn sp_frame(data: &[u8]) {
    let mut stream = data;
    while let Ok(frame) = GuestFrame::read(&mut stream) {
        let mut written = Vec::new();
        frame.write(&mut written).expect("what was read can be written");
        assert_eq!(GuestFrame::read(&mut written.as_slice()).expect("what was written can be read"), frame);
    }
    let mut stream = data;
    while let Ok(frame) = ProcessorFrame::read(&mut stream) {
        let mut written = Vec::new();
        frame.write(&mut written).expect("what was read can be written");
        assert!(ProcessorFrame::read(&mut written.as_slice()).expect("what was written can be read") == frame);
    }
}

fn sp_frames() -> Vec<Vec<u8>> {
    let message = sp_messages().swap_remove(0);
    let (mut guest, mut processor) = (Vec::new(), Vec::new());
    for frame in [
        GuestFrame::Secrets,
        GuestFrame::Request(message.clone()),
        GuestFrame::ExtendedRequest { capacity: 0x4000, message: message.clone() },
    ] {
        frame.write(&mut guest).expect("memory takes it");
    }
    let refusal = ExitInfo::firmware(0x16);
    for frame in [
        ProcessorFrame::Secrets(SecretsPage { fms: 1, vmpcks: keys().keys().clone() }.to_bytes()),
        ProcessorFrame::Response { exit_info: ExitInfo::SUCCESS, message: message.clone() },
        ProcessorFrame::Response { exit_info: refusal, message: Vec::new() },
        ProcessorFrame::ExtendedResponse { exit_info: ExitInfo::SUCCESS, table_size: 3, table: vec![1, 2, 3], message },
        ProcessorFrame::ExtendedResponse { exit_info: refusal, table_size: 9, table: Vec::new(), message: Vec::new() },
    ] {
        frame.write(&mut processor).expect("memory takes it");
    }
    vec![guest, processor]
}

fn keys() -> ProcessorSession {
    ProcessorSession::new([[1; 32], [2; 32], [3; 32], [4; 32]])
}

fn sp_message(data: &[u8]) {
    if let Ok(header) = Header::parse(data) {
        assert_eq!(header.to_bytes(), data[..caveau_sp_message::HEADER_SIZE]);
    }
    drop(keys().open(data));
    drop(SecretsPage::parse(data));
    payloads(data);
    // The same bytes inside an authentic message.
    let mut guest = GuestSession::new(keys().keys()[0].clone());
    if let Ok(message) = guest.seal(MessageType::ReportRequest, 1, data) {
        let received = keys().open(&message).expect("what was sealed can be opened");
        assert_eq!(received.payload.as_slice(), data);
    }
}

fn payloads(data: &[u8]) {
    if let Ok(request) = ReportRequest::parse(data) {
        assert_eq!(request.to_bytes(), data);
    }
    for version in 0..4 {
        if let Ok(request) = KeyRequest::parse(version, data) {
            assert_eq!((request.message_version(), request.to_bytes().as_slice()), (version, data));
        }
    }
    if let Ok(response) = ReportResponse::parse(data) {
        assert_eq!(ReportResponse::parse(&response.to_bytes()), Ok(response));
    }
    if let Ok(response) = KeyResponse::parse(data) {
        assert_eq!(response.to_bytes().as_slice(), data);
    }
}

fn sp_messages() -> Vec<Vec<u8>> {
    let report = ReportRequest { report_data: [7; 64], vmpl: 1, key: KeySelection::Vcek }.to_bytes();
    let key = |launch_mit_vector| KeyRequest {
        root: RootKey::Vcek,
        fields: KeyFields::SEALING,
        vmpl: 0,
        guest_svn: 1,
        tcb_version: 2,
        launch_mit_vector,
    };
    let mut guest = GuestSession::new(keys().keys()[0].clone());
    vec![
        guest.seal(MessageType::ReportRequest, 1, &report).expect("a seed can be sealed"),
        guest.seal(MessageType::KeyRequest, 2, &key(Some(3)).to_bytes()).expect("a seed can be sealed"),
        report.to_vec(),
        key(None).to_bytes(),
        key(Some(1)).to_bytes(),
        ReportResponse { status: Status::Success, report: Some(Box::new([5; 1184])) }.to_bytes(),
        ReportResponse::refused(Status::InvalidParameters).to_bytes(),
        KeyResponse::refused(Status::InvalidKeySelection).to_bytes().to_vec(),
        SecretsPage { fms: 1, vmpcks: keys().keys().clone() }.to_bytes().to_vec(),
    ]
}
