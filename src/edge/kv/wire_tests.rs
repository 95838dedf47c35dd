//! The decoder, on bytes as other programs write them and on bytes that nobody should.
