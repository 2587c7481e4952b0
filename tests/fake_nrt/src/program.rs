//! A program that is loaded on a core: what it is bound by, and how it runs.

use crate::{
    hlo::{Alias, Binding, Module},
    indices::IndexChecks,
    memory::Tensor,
    pjrt::{Buffer, Client, Device, Executable, MAX_REPLICAS, PjrtError},
};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, OnceLock},
};

/// Compiled, and shared by all cores that it is loaded on.
pub(crate) struct Program {
    pub(crate) name: String,
    pub(crate) inputs: Vec<Binding>,
    pub(crate) outputs: Vec<Binding>,
    pub(crate) aliases: Vec<Alias>,
    pub(crate) has_collectives: bool,
    pub(crate) indices: IndexChecks,
    /// Cores that run it together, each in a rank of its own.
    pub(crate) ranks: usize,
    client: &'static Client,
    executable: Executable,
}

/// What one rank runs on: a tensor for each input and output.
#[derive(Clone)]
pub(crate) struct RankTensors {
    pub(crate) inputs: Vec<Arc<Tensor>>,
    pub(crate) outputs: Vec<Arc<Tensor>>,
}

/// How an execution went.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ran {
    /// Inputs that XLA did not read where they are.
    pub(crate) inputs_copied: u64,
    /// Aliased outputs that XLA wrote where their input is.
    pub(crate) in_place: u64,
    /// Those that it wrote elsewhere, so that they had to be copied back.
    pub(crate) copied_back: u64,
}

/// By the hash of the module and the number of ranks.
type Compiled = HashMap<([u8; 32], usize), Arc<Program>>;

/// For programs of one rank, which are nearly all; and for the others.
static CLIENTS: [OnceLock<Result<Client, String>>; 2] = [OnceLock::new(), OnceLock::new()];
/// As many as the largest chip's neighbours that are not too many threads for a test's machine.
pub(crate) const MAX_RANKS: usize = 32;
const _: () = assert!(MAX_RANKS <= MAX_REPLICAS);
static COMPILED: Mutex<Option<Compiled>> = Mutex::new(None);

impl Program {
    /// Compiles a module, or takes what has been compiled of the same bytes.
    pub(crate) fn compile(hlo: &[u8], ranks: usize, plugin: Option<&Path>) -> Result<Arc<Self>, String> {
        // Held while it compiles: two cores that load the same program wait for the same compilation.
        let mut compiled: MutexGuard<'_, Option<Compiled>> =
            COMPILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let compiled = compiled.get_or_insert_default();
        let key = (Sha256::digest(hlo).into(), ranks);
        if let Some(program) = compiled.get(&key) {
            return Ok(Arc::clone(program));
        }
        let program = Arc::new(Self::compile_anew(hlo, ranks, plugin)?);
        compiled.insert(key, Arc::clone(&program));
        Ok(program)
    }

    fn compile_anew(hlo: &[u8], ranks: usize, plugin: Option<&Path>) -> Result<Self, String> {
        let module = Module::read(hlo).map_err(|error| error.to_string())?;
        let (inputs, outputs) = (module.inputs(), module.outputs());
        let inputs = inputs.map_err(|error| error.to_string())?;
        let outputs = outputs.map_err(|error| error.to_string())?;
        let plugin = plugin
            .ok_or("no XLA: set FAKE_NRT_PJRT to the PJRT plugin that scripts/pjrt-plugin.sh prints")?;
        let (client, devices) = if ranks == 1 { (&CLIENTS[0], None) } else { (&CLIENTS[1], Some(MAX_RANKS)) };
        let client = client.get_or_init(|| Client::load(plugin, devices).map_err(|error| error.to_string()));
        let client = client.as_ref().map_err(String::clone)?;
        let executable = client.compile(hlo, outputs.len(), ranks).map_err(|error| error.to_string())?;
        Ok(Program {
            name: module.name.clone(),
            aliases: module.aliases.clone(),
            has_collectives: module.has_collectives(),
            indices: IndexChecks::of(&module),
            inputs,
            outputs,
            ranks,
            client,
            executable,
        })
    }

    /// The parameter whose place an output takes.
    pub(crate) fn aliased_input(&self, output: usize) -> Option<usize> {
        self.aliases.iter().find(|alias| alias.output == output).map(|alias| alias.parameter)
    }

    /// Yields which places are written twice that the module promises to write once.
    ///
    /// # Errors
    /// The index that is outside of what it is an index of.
    pub(crate) fn check_indices(&self, inputs: &[Arc<Tensor>]) -> Result<Vec<String>, String> {
        let parameters = self.indices.parameters().into_iter();
        let values = parameters.filter_map(|number| Some((number, inputs.get(number)?.integers())));
        self.indices.check(&values.collect())
    }

    /// Runs it, with a tensor for each input and output of each rank, all of the right size. Weights are read
    /// where they are, aliased outputs are written where their input is, and only the others are copied.
    pub(crate) fn execute(&self, ranks: &[RankTensors]) -> Result<Vec<Ran>, PjrtError> {
        let mut ran = Vec::with_capacity(ranks.len());
        let mut views = Vec::with_capacity(ranks.len());
        for (number, tensors) in ranks.iter().enumerate() {
            let (of_rank, inputs_copied) =
                self.views(Device { client: self.client, number }, &tensors.inputs)?;
            views.push(of_rank);
            ran.push(Ran { inputs_copied, ..Ran::default() });
        }
        let inputs: Vec<Vec<_>> =
            views.iter().map(|views| views.iter().map(|view| &**view).collect()).collect();
        let results = self.executable.execute(&inputs)?;
        for ((results, tensors), ran) in results.iter().zip(ranks).zip(&mut ran) {
            self.take_back(results, &tensors.outputs, ran)?;
        }
        Ok(ran)
    }

    /// What a rank's device reads its inputs through, and how many of them had to be copied.
    fn views(&self, device: Device, inputs: &[Arc<Tensor>]) -> Result<(Vec<Arc<Buffer>>, u64), PjrtError> {
        let mut copied = 0;
        let view = |(number, (tensor, binding)): (usize, (&Arc<Tensor>, &Binding))| {
            if self.aliases.iter().any(|alias| alias.parameter == number) {
                return tensor.writable_view(device, &binding.shape).map(Arc::new);
            }
            let (view, shared) = tensor.view(device, &binding.shape)?;
            copied += u64::from(!shared);
            Ok(view)
        };
        let views = inputs.iter().zip(&self.inputs).enumerate().map(view).collect::<Result<_, _>>()?;
        Ok((views, copied))
    }

    /// Copies the results that are not in their tensors already.
    fn take_back(&self, results: &[Buffer], outputs: &[Arc<Tensor>], ran: &mut Ran) -> Result<(), PjrtError> {
        for (number, (result, tensor)) in results.iter().zip(outputs).enumerate() {
            let (from, to) = (result.pointer()?, tensor.start().as_ptr());
            let in_place = std::ptr::eq(from, to);
            if self.aliased_input(number).is_some() {
                ran.in_place += u64::from(in_place);
                ran.copied_back += u64::from(!in_place);
            }
            if !in_place {
                // SAFETY: the result is as large as the output's shape, which the tensor's size is equal to,
                // and is XLA's own memory.
                unsafe { to.copy_from_nonoverlapping(from, tensor.size) };
            }
        }
        Ok(())
    }
}
