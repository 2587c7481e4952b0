//! Protocol buffers' wire format, as much of it as an `HloModuleProto` needs.
//!
//! Fields are written in the order they are asked for, and a field that has its type's default value is
//! left out, as proto3 has it: the same module is always the same bytes.
//!
//! Source: protobuf.dev/programming-guides/encoding.

/// The bytes of one message, field by field.
#[derive(Debug, Default)]
pub(super) struct Message {
    bytes: Vec<u8>,
}

/// How a field's value is written.
#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    LengthDelimited = 2,
}

impl Message {
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A field of type `int32`, `int64`, `bool` or of an enum.
    pub(super) fn integer(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.tag(field, WireType::Varint);
            self.varint(value);
        }
    }

    pub(super) fn boolean(&mut self, field: u32, value: bool) {
        self.integer(field, value.into());
    }

    pub(super) fn text(&mut self, field: u32, value: &str) {
        if !value.is_empty() {
            self.delimited(field, value.as_bytes());
        }
    }

    /// A message is written even if it is empty: that it is there may mean something.
    pub(super) fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.delimited(field, &inner.bytes);
    }

    /// A repeated field of integers, packed.
    pub(super) fn integers(&mut self, field: u32, values: impl IntoIterator<Item = i64>) {
        let mut packed = Message::default();
        values.into_iter().for_each(|value| packed.varint(value));
        if !packed.bytes.is_empty() {
            self.delimited(field, &packed.bytes);
        }
    }

    /// A repeated field of integers that count or index, packed.
    pub(super) fn sizes(&mut self, field: u32, values: impl IntoIterator<Item = usize>) {
        self.integers(field, values.into_iter().map(|value| value as i64));
    }

    /// A repeated field of type `float`, packed.
    pub(super) fn floats(&mut self, field: u32, values: &[f32]) {
        let packed: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        if !packed.is_empty() {
            self.delimited(field, &packed);
        }
    }

    fn delimited(&mut self, field: u32, bytes: &[u8]) {
        self.tag(field, WireType::LengthDelimited);
        self.varint(bytes.len() as i64);
        self.bytes.extend_from_slice(bytes);
    }

    fn tag(&mut self, field: u32, wire_type: WireType) {
        self.varint(i64::from(field << 3 | wire_type as u32));
    }

    /// Seven bits a byte, lowest first; a negative number takes ten, being 64 bits wide.
    fn varint(&mut self, value: i64) {
        let mut rest = value as u64;
        while rest >= 0x80 {
            self.bytes.push(rest as u8 | 0x80);
            rest >>= 7;
        }
        self.bytes.push(rest as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(write: impl FnOnce(&mut Message), expected: &[u8]) {
        let mut message = Message::default();
        write(&mut message);
        assert_eq!(message.into_bytes(), expected);
    }

    /// The first three are the examples of the encoding's own page.
    #[test]
    fn fields_are_written_as_the_format_says() {
        check(|m| m.integer(1, 150), &[0x08, 0x96, 0x01]);
        check(|m| m.text(2, "testing"), &[0x12, 7, b't', b'e', b's', b't', b'i', b'n', b'g']);
        check(|m| m.integers(6, [3, 270, 86942]), &[0x32, 6, 0x03, 0x8e, 0x02, 0x9e, 0xa7, 0x05]);
        check(|m| m.integer(1, -1), &[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]);
        check(|m| m.boolean(67, true), &[0x98, 0x04, 1]);
        check(|m| m.floats(8, &[1.0]), &[0x42, 4, 0, 0, 0x80, 0x3f]);
        check(|m| m.message(3, |m| m.integer(1, 150)), &[0x1a, 3, 0x08, 0x96, 0x01]);
    }

    #[test]
    fn defaults_are_left_out_but_for_messages() {
        check(|m| m.integer(1, 0), &[]);
        check(|m| m.text(2, ""), &[]);
        check(|m| m.sizes(3, []), &[]);
        check(|m| m.message(3, |_| ()), &[0x1a, 0]);
    }
}
