//! CRC-16 as group descriptors carry it (feature `uninit_bg`): polynomial 0x8005, reflected, starting from all ones.

/// Continues `crc` over `bytes`.
pub(crate) fn crc16(crc: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(crc, |crc, &byte| {
        (0..8).fold(crc ^ u16::from(byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_value() {
        // CRC-16/MODBUS of "123456789".
        assert_eq!(crc16(0xffff, b"123456789"), 0x4b37);
    }
}
