use std::mem;

/// Makes server-sent events of bytes as they come in, in whatever pieces.
///
/// Lines end with LF or CRLF; comments, ids and retry times are passed over.
#[derive(Default)]
pub(super) struct SseReader {
    line: Vec<u8>,
    event: SseEvent,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SseEvent {
    /// Empty where the event has no name.
    pub(super) name: String,
    pub(super) data: String,
}

/// No event of a reply is as long; what is longer is not a reply.
const MAX_EVENT_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than {MAX_EVENT_BYTES} bytes")]
pub(super) struct EventTooLong;

impl SseReader {
    /// The events that `bytes` completes.
    ///
    /// # Errors
    /// An event that is not of this world.
    pub(super) fn push(&mut self, bytes: &[u8]) -> Result<Vec<SseEvent>, EventTooLong> {
        let mut events = Vec::new();
        for piece in bytes.split_inclusive(|&byte| byte == b'\n') {
            if self.line.len() + self.event.data.len() + piece.len() > MAX_EVENT_BYTES {
                return Err(EventTooLong);
            }
            self.line.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = mem::take(&mut self.line);
                let line = String::from_utf8_lossy(&line);
                events.extend(self.read(line.trim_end_matches('\n').trim_end_matches('\r')));
            }
        }
        Ok(events)
    }

    fn read(&mut self, line: &str) -> Option<SseEvent> {
        if line.is_empty() {
            let event = mem::take(&mut self.event);
            return (event != SseEvent::default()).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_do_not_depend_on_the_pieces() {
        let text = ": keep-alive\n\nevent: greeting\ndata: {\"a\":\"問題\"}\n\ndata: one\r\ndata: two\r\n\r\nid: 7\n\n\ndata:[DONE]\n\nrest";
        let event = |name: &str, data: &str| SseEvent { name: name.to_owned(), data: data.to_owned() };
        let expected = [event("greeting", "{\"a\":\"問題\"}"), event("", "one\ntwo"), event("", "[DONE]")];
        for size in [1, 2, 3, 7, 1000] {
            let mut reader = SseReader::default();
            let events: Vec<SseEvent> =
                text.as_bytes().chunks(size).flat_map(|piece| reader.push(piece).unwrap()).collect();
            assert_eq!(events, expected, "pieces of {size}");
        }
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut reader = SseReader::default();
        let piece = [b'x'; 64 * 1024];
        let refused = (0..=MAX_EVENT_BYTES / piece.len()).find_map(|_| reader.push(&piece).err());
        assert_eq!(refused, Some(EventTooLong));
    }
}
