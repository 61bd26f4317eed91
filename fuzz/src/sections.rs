//! Inputs of several parts, apart by a mark that mutations can move, copy and break.

/// What stands between two parts.
const MARK: &[u8] = b"\n%%\n";

/// The parts of an input.
pub(crate) fn sections(mut data: &[u8]) -> Vec<&[u8]> {
    let mut parts = Vec::new();
    while let Some(at) = data.windows(MARK.len()).position(|window| window == MARK) {
        parts.push(&data[..at]);
        data = &data[at + MARK.len()..];
    }
    parts.push(data);
    parts
}

/// An input of these parts.
pub(crate) fn join(parts: &[Vec<u8>]) -> Vec<u8> {
    parts.join(MARK)
}
