//! The delivery window of one partition of a group.
