//! Little-endian fields at fixed places in a buffer.

/// Puts `field` at `offset`; what would not fit is left out, which no caller's constants come near.
pub(crate) fn put(buffer: &mut [u8], offset: usize, field: &[u8]) {
    for (to, from) in buffer.iter_mut().skip(offset).zip(field) {
        *to = *from;
    }
}

/// Puts a 16-bit number.
pub(crate) fn put16(buffer: &mut [u8], offset: usize, number: u16) {
    put(buffer, offset, &number.to_le_bytes());
}

/// Puts a 32-bit number.
pub(crate) fn put32(buffer: &mut [u8], offset: usize, number: u32) {
    put(buffer, offset, &number.to_le_bytes());
}

/// Sets bit `number`, counted from the lowest bit of the first byte.
pub(crate) fn set_bit(bitmap: &mut [u8], number: u32) {
    if let Some(byte) = bitmap.get_mut((number >> 3) as usize) {
        *byte |= 1 << (number & 7);
    }
}

/// Clears bit `number`.
pub(crate) fn clear_bit(bitmap: &mut [u8], number: u32) {
    if let Some(byte) = bitmap.get_mut((number >> 3) as usize) {
        *byte &= !(1 << (number & 7));
    }
}
