//! The container group: one typed model of what shall run.
