//! The one place that can accept evidence of the emulated secure processor.
