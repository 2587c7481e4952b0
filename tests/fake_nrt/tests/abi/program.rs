//! A small program: it gathers rows of a table, writes the first of them to a cache, and reads that back.
//!
//! `cache[row] = table[ids[0] + 1]; y = table[ids + 1] + cache[row]`

use crate::library::{Handle, Library, SUCCESS, compiler};
use std::{fs, process::Command, sync::OnceLock};

pub(crate) const WIDTH: usize = 16;
pub(crate) const TABLE_ROWS: usize = 8;
pub(crate) const CACHE_ROWS: usize = 4;

const S32: i64 = 4;
const F32: i64 = 11;
const TUPLE: i64 = 13;

/// Bytes of a protocol buffer, field by field.
#[derive(Clone, Default)]
pub(crate) struct Proto(Vec<u8>);

impl Proto {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    pub(crate) fn integer(self, field: u64, value: i64) -> Self {
        self.varint(field << 3).varint(value as u64)
    }

    pub(crate) fn integers(self, field: u64, values: &[i64]) -> Self {
        values.iter().fold(self, |proto, value| proto.integer(field, *value))
    }

    pub(crate) fn bytes(self, field: u64, bytes: &[u8]) -> Self {
        let mut proto = self.varint(field << 3 | 2).varint(bytes.len() as u64);
        proto.0.extend_from_slice(bytes);
        proto
    }

    fn text(self, field: u64, text: &str) -> Self {
        self.bytes(field, text.as_bytes())
    }

    pub(crate) fn message(self, field: u64, message: Proto) -> Self {
        self.bytes(field, &message.0)
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) fn shape(element: i64, dimensions: &[i64]) -> Proto {
    let minor_to_major: Vec<i64> = (0..dimensions.len() as i64).rev().collect();
    let layout = Proto::default().integers(1, &minor_to_major).integer(16, 1);
    let dynamic = vec![0; dimensions.len()];
    Proto::default().integer(2, element).integers(3, dimensions).message(5, layout).integers(6, &dynamic)
}

fn tuple(shapes: &[Proto]) -> Proto {
    shapes.iter().fold(Proto::default().integer(2, TUPLE), |proto, shape| proto.message(4, shape.clone()))
}

/// An instruction whose name tells its opcode and id.
pub(crate) fn instruction(id: i64, opcode: &str, shape: Proto, operands: &[i64]) -> Proto {
    let named = Proto::default().text(1, &format!("{opcode}.{id}")).text(2, opcode).message(3, shape);
    named.integer(35, id).integers(36, operands)
}

fn attribute(name: &str, value: &str) -> Proto {
    Proto::default().message(1, Proto::default().text(1, name).text(2, value))
}

fn parameter(id: i64, number: i64, name: &str, shape: Proto) -> Proto {
    instruction(id, "parameter", shape, &[])
        .integer(9, number)
        .message(68, attribute("neff_input_names", name))
}

fn constant(id: i64, value: i64) -> Proto {
    let literal = Proto::default().message(1, shape(S32, &[])).integers(4, &[value]);
    instruction(id, "constant", shape(S32, &[]), &[]).message(8, literal)
}

fn program_shape(parameters: &[Proto], result: Proto) -> Proto {
    let shapes = parameters.iter().fold(Proto::default(), |proto, shape| proto.message(1, shape.clone()));
    let named = |proto: Proto, number| proto.text(3, &format!("p{number}"));
    (0..parameters.len()).fold(shapes.message(2, result), named)
}

/// What a computation is made of.
fn computation(id: i64, name: &str, instructions: &[Proto], shape: Proto, root: i64) -> Proto {
    let proto =
        instructions.iter().fold(Proto::default().text(1, name), |proto, one| proto.message(2, one.clone()));
    proto.message(4, shape).integer(5, id).integer(6, root)
}

/// The module, with more instructions in its entry, which nothing uses.
pub(crate) fn module_with(more: &[Proto]) -> Vec<u8> {
    let (rows, width) = (CACHE_ROWS as i64, WIDTH as i64);
    let scalar = || shape(F32, &[]);
    let pair = [
        instruction(1, "parameter", scalar(), &[]),
        instruction(2, "parameter", scalar(), &[]).integer(9, 1),
        instruction(3, "copy", scalar(), &[2]),
    ];
    let assign = computation(1, "assign", &pair, program_shape(&[scalar(), scalar()], scalar()), 3);

    let cache = shape(F32, &[rows, width]);
    let (ids, row, table) = (shape(S32, &[2]), shape(S32, &[1]), shape(F32, &[TABLE_ROWS as i64, width]));
    let (both, one) = (shape(F32, &[2, width]), shape(F32, &[1, width]));
    let by_rows = Proto::default().integer(1, 1).integer(2, 0).integer(3, 0).integer(4, 1);
    let result = tuple(&[both.clone(), cache.clone()]);
    let range = |start, limit| Proto::default().integer(1, start).integer(2, limit).integer(3, 1);
    let mut instructions = vec![
        parameter(10, 0, "cache.must_alias_input", cache.clone()),
        parameter(11, 1, "ids", ids.clone()),
        parameter(12, 2, "row", row.clone()),
        parameter(13, 3, "table", table.clone()),
        constant(14, 1),
        instruction(15, "broadcast", ids.clone(), &[14]),
        instruction(16, "add", ids.clone(), &[11, 15]),
        instruction(17, "gather", both.clone(), &[13, 16])
            .message(33, by_rows.clone())
            .integers(34, &[1, width]),
        instruction(18, "slice", one.clone(), &[17]).message(17, range(0, 1)).message(17, range(0, width)),
        instruction(19, "scatter", cache.clone(), &[10, 12, 18]).integer(38, 1).message(48, by_rows),
        instruction(20, "reshape", shape(S32, &[]), &[12]),
        constant(21, 0),
        instruction(22, "dynamic-slice", one, &[19, 20, 21]).integers(20, &[1, width]),
        instruction(23, "reshape", shape(F32, &[width]), &[22]),
        instruction(24, "broadcast", both.clone(), &[23]).integer(14, 1),
        instruction(25, "add", both, &[17, 24]),
    ];
    instructions.extend_from_slice(more);
    let names = attribute("neff_output_names", "y,cache");
    instructions.push(instruction(90, "tuple", result.clone(), &[25, 19]).message(68, names));
    let entry_shape = program_shape(&[cache, ids, row, table], result);
    let entry = computation(2, "entry", &instructions, entry_shape.clone(), 90);
    let alias = Proto::default().integer(1, 1).integer(2, 0).integer(4, 2);
    let proto = Proto::default().text(1, "cell").text(2, "entry").message(3, assign).message(3, entry);
    proto.message(4, entry_shape).integer(6, 2).message(8, Proto::default().message(1, alias)).into_bytes()
}

/// Adds up what two ranks have, and what was there before: `sum = sum + all_reduce(x)`.
pub(crate) fn sum_module() -> Vec<u8> {
    let scalar = || shape(F32, &[]);
    let pair = [
        instruction(1, "parameter", scalar(), &[]),
        instruction(2, "parameter", scalar(), &[]).integer(9, 1),
        instruction(3, "add", scalar(), &[1, 2]),
    ];
    let add = computation(1, "add", &pair, program_shape(&[scalar(), scalar()], scalar()), 3);
    let row = || shape(F32, &[WIDTH as i64]);
    let both = Proto::default().integers(1, &[0, 1]);
    let names = attribute("neff_output_names", "sum");
    let instructions = [
        parameter(10, 0, "sum.must_alias_input", row()),
        parameter(11, 1, "x", row()),
        instruction(12, "all-reduce", row(), &[11]).integer(38, 1).message(49, both),
        instruction(13, "add", row(), &[10, 12]).message(68, names),
    ];
    let entry_shape = program_shape(&[row(), row()], row());
    let entry = computation(2, "entry", &instructions, entry_shape.clone(), 13);
    let alias = Proto::default().integer(2, 0).integer(4, 2);
    let proto = Proto::default().text(1, "sum").text(2, "entry").message(3, add).message(3, entry);
    proto.message(4, entry_shape).integer(6, 2).message(8, Proto::default().message(1, alias)).into_bytes()
}

/// The program above, compiled by the stand-in for a target.
pub(crate) fn neff_for(target: &str) -> Vec<u8> {
    compile(&module_with(&[]), target)
}

pub(crate) fn compile(module: &[u8], target: &str) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("cell.pb"), module).unwrap();
    let mut command = Command::new(compiler());
    command.current_dir(&folder).args(["compile", "cell.pb", "--framework", "XLA", "--target", target]);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::read(folder.path().join("file.neff")).unwrap()
}

/// Compiled once, for inf2.
pub(crate) fn neff() -> &'static [u8] {
    static NEFF: OnceLock<Vec<u8>> = OnceLock::new();
    NEFF.get_or_init(|| neff_for("inf2"))
}

/// The program on a core, with tensors for all it wants.
pub(crate) struct Cell {
    pub(crate) model: Handle,
    pub(crate) inputs: Handle,
    pub(crate) outputs: Handle,
    pub(crate) cache: Handle,
    pub(crate) ids: Handle,
    pub(crate) row: Handle,
    pub(crate) table: Handle,
    pub(crate) y: Handle,
}

impl Cell {
    pub(crate) fn load(library: &Library, core: i32) -> Self {
        let model = library.load(neff(), core).unwrap();
        let allocate = |numbers: usize| library.allocate(core, numbers * 4).unwrap();
        let (cache, table) = (allocate(CACHE_ROWS * WIDTH), allocate(TABLE_ROWS * WIDTH));
        let (ids, row, y) = (allocate(2), allocate(1), allocate(2 * WIDTH));
        let named = [("cache.must_alias_input", cache), ("ids", ids), ("row", row), ("table", table)];
        let inputs = library.set(&named);
        let outputs = library.set(&[("y", y), ("cache", cache)]);
        let cell = Cell { model, inputs, outputs, cache, ids, row, table, y };
        let numbers: Vec<f32> = (0..TABLE_ROWS * WIDTH).map(table_at).collect();
        assert_eq!(library.write(table, 0, &floats(&numbers)), SUCCESS);
        assert_eq!(library.write(cache, 0, &[0; CACHE_ROWS * WIDTH * 4]), SUCCESS);
        cell
    }

    pub(crate) fn step(&self, library: &Library, ids: [i32; 2], row: i32) -> i32 {
        assert_eq!(library.write(self.ids, 0, &ids.map(i32::to_le_bytes).concat()), SUCCESS);
        assert_eq!(library.write(self.row, 0, &row.to_le_bytes()), SUCCESS);
        library.execute(self.model, self.inputs, self.outputs)
    }

    pub(crate) fn free(self, library: &Library) {
        library.destroy(self.inputs);
        library.destroy(self.outputs);
        [self.cache, self.ids, self.row, self.table, self.y]
            .into_iter()
            .for_each(|tensor| library.free(tensor));
        assert_eq!(library.unload(self.model), SUCCESS);
    }
}

pub(crate) fn table_at(number: usize) -> f32 {
    number as f32 / 4.0
}

pub(crate) fn table_row(row: usize) -> Vec<f32> {
    (row * WIDTH..(row + 1) * WIDTH).map(table_at).collect()
}

pub(crate) fn floats(numbers: &[f32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_le_bytes()).collect()
}

pub(crate) fn read_floats(library: &Library, tensor: Handle, count: usize) -> Vec<f32> {
    let bytes = library.read(tensor, 0, count * 4).unwrap();
    bytes.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect()
}
