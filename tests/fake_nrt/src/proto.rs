//! Protocol buffers' wire format, for reading.
//!
//! Source: protobuf.dev/programming-guides/encoding.

/// A message as the fields it holds, in the order they stand.
pub(crate) struct Message<'a> {
    fields: Vec<(u32, Value<'a>)>,
}

#[derive(Clone, Copy)]
enum Value<'a> {
    Varint(u64),
    Fixed(&'a [u8]),
    Bytes(&'a [u8]),
}

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("not a protocol buffer: {0}")]
pub struct Malformed(&'static str);

impl<'a> Message<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut fields = Vec::new();
        let mut rest = bytes;
        while !rest.is_empty() {
            let tag = varint(&mut rest)?;
            let field = u32::try_from(tag >> 3).map_err(|_| Malformed("a field's number is too large"))?;
            let value = match tag & 7 {
                0 => Value::Varint(varint(&mut rest)?),
                1 => Value::Fixed(take(&mut rest, 8)?),
                2 => {
                    let len = varint(&mut rest)?;
                    Value::Bytes(take(&mut rest, len)?)
                }
                5 => Value::Fixed(take(&mut rest, 4)?),
                _ => return Err(Malformed("a field's type is unknown")),
            };
            fields.push((field, value));
        }
        Ok(Message { fields })
    }

    fn of(&self, number: u32) -> impl Iterator<Item = Value<'a>> {
        self.fields.iter().filter(move |(field, _)| *field == number).map(|(_, value)| *value)
    }

    pub(crate) fn has(&self, field: u32) -> bool {
        self.of(field).next().is_some()
    }

    /// The last one that stands there; 0 if there is none.
    pub(crate) fn integer(&self, field: u32) -> i64 {
        let varint = |value| if let Value::Varint(value) = value { Some(value as i64) } else { None };
        self.of(field).filter_map(varint).last().unwrap_or(0)
    }

    /// A repeated field of integers, packed or not.
    pub(crate) fn integers(&self, field: u32) -> Result<Vec<i64>, Malformed> {
        let mut integers = Vec::new();
        for value in self.of(field) {
            match value {
                Value::Varint(value) => integers.push(value as i64),
                Value::Bytes(mut packed) => {
                    while !packed.is_empty() {
                        integers.push(varint(&mut packed)? as i64);
                    }
                }
                Value::Fixed(_) => return Err(Malformed("a fixed number where a varint belongs")),
            }
        }
        Ok(integers)
    }

    pub(crate) fn bytes(&self, field: u32) -> &'a [u8] {
        let bytes = |value| if let Value::Bytes(bytes) = value { Some(bytes) } else { None };
        self.of(field).filter_map(bytes).last().unwrap_or_default()
    }

    /// A repeated field of `float`s, packed or not.
    pub(crate) fn floats(&self, field: u32) -> Vec<f32> {
        let bytes = self.of(field).flat_map(|value| match value {
            Value::Fixed(bytes) | Value::Bytes(bytes) => bytes.as_chunks::<4>().0.iter().copied(),
            Value::Varint(_) => [].as_slice().iter().copied(),
        });
        bytes.map(f32::from_le_bytes).collect()
    }

    pub(crate) fn text(&self, field: u32) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes(field)).map_err(|_| Malformed("a text is not UTF-8"))
    }

    pub(crate) fn message(&self, field: u32) -> Result<Option<Message<'a>>, Malformed> {
        if !self.has(field) {
            return Ok(None);
        }
        Message::read(self.bytes(field)).map(Some)
    }

    pub(crate) fn messages(&self, field: u32) -> impl Iterator<Item = Result<Message<'a>, Malformed>> {
        self.of(field).map(|value| match value {
            Value::Bytes(bytes) => Message::read(bytes),
            _ => Err(Malformed("a number where a message belongs")),
        })
    }
}

fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Malformed("it ends in the middle of a number"))?;
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed("a number is longer than 64 bits"))
}

fn take<'a>(rest: &mut &'a [u8], len: u64) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(len).ok().filter(|&len| len <= rest.len());
    let (taken, after) = rest.split_at(len.ok_or(Malformed("it ends in the middle of a field"))?);
    *rest = after;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the encoding's own page.
    #[test]
    fn fields_are_read_as_the_format_says() {
        let message = Message::read(&[
            0x08, 0x96, 0x01, 0x12, 7, b't', b'e', b's', b't', b'i', b'n', b'g', 0x32, 6, 0x03, 0x8e, 0x02,
            0x9e, 0xa7, 0x05, 0x42, 4, 0, 0, 0x80, 0x3f,
        ])
        .unwrap();
        assert_eq!(message.integer(1), 150);
        assert_eq!(message.text(2), Ok("testing"));
        assert_eq!(message.integers(6), Ok(vec![3, 270, 86942]));
        assert_eq!(message.floats(8), [1.0]);
        assert_eq!(message.integer(9), 0);
    }

    #[test]
    fn what_ends_early_is_refused() {
        assert!(Message::read(&[0x08]).is_err());
        assert!(Message::read(&[0x12, 7, b't']).is_err());
        assert!(Message::read(&[0x0b]).is_err(), "a group");
        assert!(Message::read(&[0x08, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1]).is_err());
    }
}
