//! Record batches, format version 2: the header, decoding without copies, encoding.

pub(crate) mod decode;
pub(crate) mod encode;
pub(crate) mod header;
pub(crate) mod record;
mod varint;
