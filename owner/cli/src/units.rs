//! Sizes and numbers as people write them, and the time.

use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use caveau_evidence::Timestamp;

/// The time by this machine's clock.
///
/// # Errors
/// Where that is set before 1970.
pub(crate) fn now() -> Result<Timestamp> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is set before 1970")?;
    Ok(Timestamp::from_unix(now.as_secs()))
}

/// Bytes of a size such as `512M`, `2G`, `2GiB` or `1048576`; the units are powers of 1024.
///
/// # Errors
/// Where the text is not a number and a unit, or the size does not fit.
pub(crate) fn bytes(text: &str) -> Result<u64> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let shift = match unit.to_ascii_lowercase().trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => bail!("invalid size {text:?}: write a number with K, M, G or T, such as 512M"),
    };
    let number: u64 = number.parse().with_context(|| format!("invalid size {text:?}: write it as 512M or 2G"))?;
    number.checked_mul(1 << shift).with_context(|| format!("invalid size {text:?}: too large"))
}

/// Thousandths of a number such as `0.5`, `2` or `1.25`.
///
/// # Errors
/// Where the text is not such a number, or has more than three digits after the point.
pub(crate) fn millis(text: &str) -> Result<u32> {
    let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() > 3 {
        bail!("invalid number {text:?}: write it as 0.5 or 2, with at most three digits after the point");
    }
    let thousandths = format!("{whole}{part:0<3}").parse();
    thousandths.with_context(|| format!("invalid number {text:?}: too large"))
}

/// A size for people: three digits and a unit.
pub(crate) fn human(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_thousandths() {
        for (text, expected) in [("0.5", 500), ("2", 2000), ("1.25", 1250), ("0.010", 10), ("0", 0)] {
            assert_eq!(millis(text).unwrap(), expected, "{text}");
        }
        for bad in ["", ".5", "1.", "-1", "+1", "1e3", "0.0005", "4294968", "1,5"] {
            assert!(millis(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        for (text, expected) in
            [("1", 1), ("512M", 512 << 20), ("2G", 2 << 30), ("2GiB", 2 << 30), ("4kb", 4096), ("1t", 1 << 40)]
        {
            assert_eq!(bytes(text).unwrap(), expected, "{text}");
        }
        for bad in ["", "M", "-1M", "1.5G", "12X", "99999999999T", " 1M"] {
            assert!(bytes(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn sizes_for_people() {
        assert_eq!(human(12), "12 B");
        assert_eq!(human(1536), "1.5 KiB");
        assert_eq!(human(5 << 30), "5.0 GiB");
        assert_eq!(human(3 << 42), "12.0 TiB");
    }
}
