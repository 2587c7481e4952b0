use super::*;

/// Writes a GGUF file piece by piece, right or wrong.
struct Writer(Vec<u8>);

impl Writer {
    fn header(version: u32, tensors: u64, entries: u64) -> Self {
        let mut writer = Self(b"GGUF".to_vec());
        writer.0.extend(version.to_le_bytes());
        writer.u64(tensors).u64(entries)
    }

    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_le_bytes());
        self
    }

    fn text(mut self, value: &str) -> Self {
        self = self.u64(value.len() as u64);
        self.0.extend(value.as_bytes());
        self
    }

    fn tensor(self, name: &str, dims: &[u64], type_id: u32, offset: u64) -> Self {
        let mut writer = self.text(name).u32(dims.len() as u32);
        for &dim in dims {
            writer = writer.u64(dim);
        }
        writer.u32(type_id).u64(offset)
    }

    fn data(mut self, len: usize) -> Self {
        self.0.resize(self.0.len().next_multiple_of(32) + len, 0);
        self
    }
}

#[track_caller]
fn check_error(writer: Writer, field: &str, reason: &str) {
    let fault = read_header(&writer.0).expect_err("the file is wrong");
    assert_eq!(fault.field, field);
    assert!(fault.reason.contains(reason), "{:?} does not say {reason:?}", fault.reason);
}

#[test]
fn a_sound_file_is_read() {
    for version in [2, 3] {
        let writer = Writer::header(version, 2, 3)
            .text("general.architecture")
            .u32(STRING)
            .text("llama")
            .text("numbers")
            .u32(ARRAY)
            .u32(UINT32)
            .u64(2)
            .u32(7)
            .u32(9)
            .text("negative")
            .u32(INT32)
            .u32(-5i32 as u32)
            .tensor("a", &[32, 2], 2, 64)
            .tensor("b", &[4], 0, 0)
            .data(64 + 36);
        let (metadata, tensors) = read_header(&writer.0).unwrap();
        assert_eq!(metadata.get("general.architecture").unwrap().as_str(), Some("llama"));
        let numbers = vec![MetadataValue::Unsigned(7), MetadataValue::Unsigned(9)];
        assert_eq!(metadata.get("numbers"), Some(&MetadataValue::Array(numbers)));
        assert_eq!(metadata.get("negative"), Some(&MetadataValue::Signed(-5)));
        assert_eq!(tensors[0].shape, [2, 32], "the outermost dimension comes first");
        assert_eq!(tensors[0].tensor_type, TensorType::Q4_0);
        assert_eq!(tensors[0].bytes.len(), 36);
        assert_eq!(tensors[0].bytes.end, writer.0.len());
    }
}

#[test]
fn a_wrong_start_is_named() {
    check_error(Writer(b"GGML".to_vec()), "header", "not a GGUF file");
    check_error(Writer(b"GG".to_vec()), "header", "past the end");
    check_error(Writer::header(1, 0, 0), "header", "version 1");
    check_error(Writer::header(3u32.swap_bytes(), 0, 0), "header", "big-endian");
}

#[test]
fn counts_are_checked_before_memory_is_asked_for() {
    check_error(Writer::header(3, u64::MAX, 0), "tensor count", "cannot fit");
    check_error(Writer::header(3, 0, 1 << 40), "metadata count", "cannot fit");
    let key = || Writer::header(3, 0, 1).text("k");
    let padding = [0; 64];
    let with_padding = |mut writer: Writer| {
        writer.0.extend(padding);
        writer
    };
    check_error(with_padding(key().u32(ARRAY).u32(UINT8).u64(u64::MAX)), "k", "cannot fit");
    check_error(with_padding(key().u32(STRING).u64(1 << 60)), "k", "cannot fit");
    check_error(with_padding(Writer::header(3, 0, 1).u64(1 << 50)), "metadata key 0", "cannot fit");
}

#[test]
fn values_are_limited_in_number_and_depth() {
    let mut many = Writer::header(3, 0, 1).text("k").u32(ARRAY).u32(UINT8).u64(MAX_VALUES as u64);
    many.0.resize(many.0.len() + MAX_VALUES, 0);
    check_error(many, "k", "values");

    let mut deep = Writer::header(3, 0, 1).text("k").u32(ARRAY);
    for _ in 0..1000 {
        deep = deep.u32(ARRAY).u64(1);
    }
    check_error(deep, "k", "nested");
}

#[test]
fn wrong_values_are_named_by_their_key() {
    let key = || Writer::header(3, 0, 1).text("k");
    check_error(key().u32(99).u64(0), "k", "99 is not a metadata value type");
    check_error(key().u32(BOOL).u32(2), "k", "2 is not a bool");
    let twice = Writer::header(3, 0, 2).text("k").u32(UINT32).u32(1).text("k").u32(UINT32).u32(1);
    check_error(twice, "k", "twice");
    let alignment = Writer::header(3, 0, 1).text("general.alignment").u32(UINT32).u32(3);
    check_error(alignment, "general.alignment", "power of two");
}

#[test]
fn wrong_tensors_are_named() {
    let one =
        |dims: &[u64], type_id, offset| Writer::header(3, 1, 0).tensor("t", dims, type_id, offset).data(128);
    check_error(one(&[32], 0, 32), "tensor t", "past the end");
    check_error(one(&[32], 0, u64::MAX - 31), "tensor t", "past the end");
    check_error(one(&[4], 0, 4), "tensor t", "multiple of the alignment");
    check_error(one(&[u64::MAX, 2], 0, 0), "tensor t", "too large");
    check_error(one(&[0], 0, 0), "tensor t", "zero");
    check_error(one(&[16], 2, 0), "tensor t", "whole Q4_0 blocks");
    check_error(one(&[256], 10, 0), "tensor t", "type Q2_K is not supported");
    check_error(one(&[1, 1, 1, 1, 1], 0, 0), "tensor t", "5 dimensions");

    let two = |name, offset| {
        Writer::header(3, 2, 0).tensor("t", &[16], 0, 0).tensor(name, &[4], 0, offset).data(128)
    };
    check_error(two("t", 64), "tensor t", "twice");
    check_error(two("u", 32), "tensor u", "overlaps tensor t");
    read_header(&two("u", 64).0).unwrap();
}
