//! Protocol buffers' wire format, as much of it as an `HloModuleProto` and an ONNX `ModelProto` need.
//!
//! Fields are written in the order they are asked for, and a field that has its type's default value is
//! left out, as proto3 has it: the same message is always the same bytes.
//!
//! Source: protobuf.dev/programming-guides/encoding.

/// The bytes of one message, field by field.
#[derive(Debug, Default)]
pub(in crate::backend) struct Message {
    bytes: Vec<u8>,
}

/// How a field's value is written.
#[derive(Clone, Copy)]
enum WireType {
    Varint = 0,
    LengthDelimited = 2,
    Fixed32 = 5,
}

impl Message {
    pub(in crate::backend) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// A field of type `int32`, `int64`, `bool` or of an enum.
    pub(in crate::backend) fn integer(&mut self, field: u32, value: i64) {
        if value != 0 {
            self.tag(field, WireType::Varint);
            self.varint(value);
        }
    }

    pub(in crate::backend) fn boolean(&mut self, field: u32, value: bool) {
        self.integer(field, value.into());
    }

    pub(in crate::backend) fn text(&mut self, field: u32, value: &str) {
        if !value.is_empty() {
            self.delimited(field, value.as_bytes());
        }
    }

    pub(in crate::backend) fn float(&mut self, field: u32, value: f32) {
        if value != 0.0 {
            self.tag(field, WireType::Fixed32);
            self.bytes.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(in crate::backend) fn bytes(&mut self, field: u32, value: &[u8]) {
        if !value.is_empty() {
            self.delimited(field, value);
        }
    }

    /// A string that is written even if it is empty: in a list its place means something.
    pub(in crate::backend) fn item(&mut self, field: u32, value: &str) {
        self.delimited(field, value.as_bytes());
    }

    /// A message is written even if it is empty: that it is there may mean something.
    pub(in crate::backend) fn message(&mut self, field: u32, write: impl FnOnce(&mut Message)) {
        let mut inner = Message::default();
        write(&mut inner);
        self.delimited(field, &inner.bytes);
    }

    /// A repeated field of integers, packed.
    pub(in crate::backend) fn integers(&mut self, field: u32, values: impl IntoIterator<Item = i64>) {
        let mut packed = Message::default();
        values.into_iter().for_each(|value| packed.varint(value));
        if !packed.bytes.is_empty() {
            self.delimited(field, &packed.bytes);
        }
    }

    /// A repeated field of integers that count or index, packed.
    pub(in crate::backend) fn sizes(&mut self, field: u32, values: impl IntoIterator<Item = usize>) {
        self.integers(field, values.into_iter().map(|value| value as i64));
    }

    /// A repeated field of type `float`, packed.
    pub(in crate::backend) fn floats(&mut self, field: u32, values: &[f32]) {
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

/// A field as it was read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::backend) enum Field<'a> {
    Varint(u64),
    /// A string, bytes, a message or a packed list.
    Bytes(&'a [u8]),
    /// Of a width that nobody asks for here.
    Fixed,
}

/// A message ends in the middle of a field, or has none such.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is not a protocol buffer, or is cut off")]
pub(in crate::backend) struct Malformed;

/// The fields of a message that came from outside; after an error there are none.
pub(in crate::backend) struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    pub(in crate::backend) fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn read(&mut self) -> Result<(u64, Field<'a>), Malformed> {
        let tag = self.read_varint()?;
        let field = match tag & 7 {
            0 => Field::Varint(self.read_varint()?),
            1 => self.take(8).map(|_| Field::Fixed)?,
            2 => {
                let len = self.read_varint()?;
                Field::Bytes(self.take(usize::try_from(len).map_err(|_| Malformed)?)?)
            }
            5 => self.take(4).map(|_| Field::Fixed)?,
            _ => return Err(Malformed),
        };
        Ok((tag >> 3, field))
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(Malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn read_varint(&mut self) -> Result<u64, Malformed> {
        const MAX_BYTES: usize = 10;
        let mut value = 0;
        for nth in 0..MAX_BYTES {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7f) << (7 * nth);
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Field<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.read();
        if field.is_err() {
            self.rest = &[];
        }
        Some(field)
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
        check(|m| m.float(2, 1.0), &[0x15, 0, 0, 0x80, 0x3f]);
        check(|m| m.bytes(9, &[0, 255]), &[0x4a, 2, 0, 255]);
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

    #[test]
    fn what_was_written_is_read() {
        let mut message = Message::default();
        message.integer(1, -2);
        message.text(200, "four");
        message.float(3, 0.5);
        let bytes = message.into_bytes();
        let expected = [(1, Field::Varint(-2_i64 as u64)), (200, Field::Bytes(b"four")), (3, Field::Fixed)];
        assert_eq!(Fields::new(&bytes).collect::<Result<Vec<_>, _>>(), Ok(expected.to_vec()));
        let ends: Vec<usize> =
            (0..bytes.len()).filter(|&len| Fields::new(&bytes[..len]).all(|field| field.is_ok())).collect();
        assert_eq!(ends, [0, 11, 18], "cut between fields alone");
        for hostile in
            [&[0x0a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1][..], &[0xff; 20], &[0x0b]]
        {
            assert_eq!(Fields::new(hostile).collect::<Vec<_>>(), [Err(Malformed)]);
        }
    }
}
