//! Containers on libcontainer, made by a re-executed single-threaded helper.
