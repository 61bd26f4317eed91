//! Timestamps in ext4's 64-bit form, with the reference's treatment of what does not fit.
//!
//! The low 34 bits are seconds since 1970 (32 in the inode's time field, 2 as extension), the upper 30 nanoseconds
//! (kernel documentation, `filesystems/ext4/inodes`, "Inode Timestamps").

/// A moment: seconds since 1970, and nanoseconds after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment {
    seconds: i64,
    nanoseconds: u32,
}

/// Seconds of the moment that the reference takes for "not set": 1 January of the year 1.
const UNSET_SECONDS: i64 = -62_135_596_800;

const SECOND_MASK: u64 = (1 << 34) - 1;
const EARLIEST: i64 = -0x8000_0000;
const LATEST: i64 = 0x3_7fff_ffff;

impl Moment {
    /// Seconds with any number of nanoseconds added, also a negative one.
    pub(crate) fn new(seconds: i64, nanoseconds: i64) -> Self {
        let carry = nanoseconds.div_euclid(1_000_000_000);
        let nanoseconds = nanoseconds.rem_euclid(1_000_000_000);
        Self { seconds: seconds.wrapping_add(carry), nanoseconds: nanoseconds as u32 }
    }
}

/// A timestamp as it is stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct FsTime(u64);

impl FsTime {
    /// The stored form of a moment; zero where there is none.
    ///
    /// Moments out of range are moved to its edges. Before 1970, but in range, the sign fills the bits of the
    /// nanoseconds: that is not what ext4 means, but it is what the reference writes.
    pub(crate) fn new(moment: Option<Moment>) -> Self {
        match moment {
            None | Some(Moment { seconds: UNSET_SECONDS, nanoseconds: 0 }) => Self(0),
            Some(Moment { seconds, .. }) if seconds < EARLIEST => Self(EARLIEST.unsigned_abs()),
            Some(Moment { seconds, .. }) if seconds > LATEST => Self(LATEST.unsigned_abs()),
            Some(Moment { seconds, nanoseconds }) => Self(seconds.cast_unsigned() | u64::from(nanoseconds) << 34),
        }
    }

    /// What comes back when the reference reads a stored timestamp and stores it again, as it does with the times that
    /// a made-up parent inherits: from 2038 on, and before 1970, it is not the same.
    pub(crate) fn read_back(self) -> Self {
        if self.0 == 0 {
            return self;
        }
        let low = (self.0 & SECOND_MASK).cast_signed();
        let seconds =
            if (0x8000_0000..0x1_0000_0000).contains(&low) { i64::from((low as u32).cast_signed()) } else { low };
        Self::new(Some(Moment::new(seconds, (self.0 >> 34).cast_signed())))
    }

    /// The low word, for the inode's time field.
    pub(crate) fn low(self) -> u32 {
        self.0 as u32
    }

    /// The high word, for the field that extends it.
    pub(crate) fn high(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(seconds: i64, nanoseconds: i64) -> u64 {
        FsTime::new(Some(Moment::new(seconds, nanoseconds))).0
    }

    #[test]
    fn edges_are_the_references() {
        assert_eq!(FsTime::new(None).0, 0);
        assert_eq!(stored(UNSET_SECONDS, 0), 0);
        assert_eq!(stored(1_700_000_000, 123_456_789), 1_700_000_000 | 123_456_789 << 34);
        assert_eq!(stored(i64::MIN, 0), 0x8000_0000);
        assert_eq!(stored(i64::MAX, 999_999_999), 0x3_7fff_ffff);
        assert_eq!(stored(-1, 0), u64::MAX);
        assert_eq!(stored(0, -1), u64::MAX, "one nanosecond before 1970 is in the second before");
    }

    #[test]
    fn read_back_changes_what_the_reference_changes() {
        let usual = FsTime::new(Some(Moment::new(1_700_000_000, 5)));
        assert_eq!(usual.read_back(), usual);
        let in_2100 = FsTime::new(Some(Moment::new(4_102_444_800, 0)));
        assert_eq!(in_2100.read_back().0, (4_102_444_800_i64 - 0x1_0000_0000).cast_unsigned());
        assert_eq!(FsTime::new(Some(Moment::new(-1, 0))).read_back().0, 0x3_7fff_ffff);
    }
}
