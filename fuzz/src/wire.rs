//! Bytes taken for a stream of frames, and for the body of a message.
//!
//! What is taken must say exactly its bytes, and no length makes room before its bytes are there.

use annals::sync::link::frame::{FRAME_BYTES_MAX, Incoming, push};
use annals::sync::message::Message;
use annals::sync::wire::{
    Said, TOKENS, TOKENS_HEAD, decode, decode_hello, encode, encode_hello, encode_tokens,
};

/// One input: how the bytes come in pieces, the type of a frame, its body.
pub fn run(data: &[u8]) {
    let [piece, kind, body @ ..] = data else { return };
    stream(body, usize::from(*piece) + 1);
    message(*kind, body);
    if let Ok(hello) = decode_hello(body) {
        assert_eq!(encode_hello(&hello), body);
    }
    // The same as a frame that is one.
    let mut bytes = Vec::new();
    push(&mut bytes, *kind, body);
    let mut incoming = Incoming::new(FRAME_BYTES_MAX);
    incoming.take(&bytes);
    let frame = incoming.next_frame().expect("a frame").expect("all of it");
    assert_eq!((frame.kind, frame.body), (*kind, body));
}

fn stream(bytes: &[u8], piece: usize) {
    let mut incoming = Incoming::new(FRAME_BYTES_MAX);
    for part in bytes.chunks(piece) {
        incoming.take(part);
        loop {
            match incoming.next_frame() {
                Ok(Some(frame)) => message(frame.kind, &frame.body.to_vec()),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(incoming.held() <= (128 << 10) + 2 * bytes.len(), "room for what did not come");
    }
}

fn message(kind: u8, body: &[u8]) {
    match decode(kind, body) {
        Ok(Said::Message(message)) => {
            let mut again = Vec::new();
            assert_eq!(encode(&message, &mut again), kind);
            // Members are a map: their order is not kept, nor two of one name.
            let a_map = matches!(
                message,
                Message::Members(_) | Message::Knows { .. } | Message::Welcome { .. }
            );
            assert!(a_map || again == body, "{message:?}");
            assert_eq!(decode(kind, &again), Ok(Said::Message(message)));
        }
        Ok(Said::Tokens(tokens)) => {
            assert_eq!(kind, TOKENS);
            assert_eq!(encode_tokens(&tokens), body[..TOKENS_HEAD]);
            assert_eq!(tokens.bytes, &body[TOKENS_HEAD..]);
        }
        Ok(Said::Skipped) | Err(_) => {}
    }
}
