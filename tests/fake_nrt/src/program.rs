//! A program that is loaded on a core: what it is bound by, and how it runs.

use crate::{
    hlo::{Alias, Binding, Module},
    indices::IndexChecks,
    memory::Tensor,
    pjrt::{Client, Executable, PjrtError},
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
    client: &'static Client,
    executable: Executable,
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

type Compiled = HashMap<[u8; 32], Arc<Program>>;

static CLIENT: OnceLock<Result<Client, String>> = OnceLock::new();
static COMPILED: Mutex<Option<Compiled>> = Mutex::new(None);

impl Program {
    /// Compiles a module, or takes what has been compiled of the same bytes.
    pub(crate) fn compile(hlo: &[u8], plugin: Option<&Path>) -> Result<Arc<Self>, String> {
        // Held while it compiles: two cores that load the same program wait for the same compilation.
        let mut compiled: MutexGuard<'_, Option<Compiled>> =
            COMPILED.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let compiled = compiled.get_or_insert_default();
        let key = Sha256::digest(hlo).into();
        if let Some(program) = compiled.get(&key) {
            return Ok(Arc::clone(program));
        }
        let program = Arc::new(Self::compile_anew(hlo, plugin)?);
        compiled.insert(key, Arc::clone(&program));
        Ok(program)
    }

    fn compile_anew(hlo: &[u8], plugin: Option<&Path>) -> Result<Self, String> {
        let module = Module::read(hlo).map_err(|error| error.to_string())?;
        let (inputs, outputs) = (module.inputs(), module.outputs());
        let inputs = inputs.map_err(|error| error.to_string())?;
        let outputs = outputs.map_err(|error| error.to_string())?;
        let plugin = plugin
            .ok_or("no XLA: set FAKE_NRT_PJRT to the PJRT plugin that scripts/pjrt-plugin.sh prints")?;
        let client = CLIENT.get_or_init(|| Client::load(plugin).map_err(|error| error.to_string()));
        let client = client.as_ref().map_err(String::clone)?;
        let executable = client.compile(hlo, outputs.len()).map_err(|error| error.to_string())?;
        Ok(Program {
            name: module.name.clone(),
            aliases: module.aliases.clone(),
            has_collectives: module.has_collectives(),
            indices: IndexChecks::of(&module),
            inputs,
            outputs,
            client,
            executable,
        })
    }

    /// The parameter whose place an output takes.
    pub(crate) fn aliased_input(&self, output: usize) -> Option<usize> {
        self.aliases.iter().find(|alias| alias.output == output).map(|alias| alias.parameter)
    }

    /// # Errors
    /// The index that is outside of what it is an index of.
    pub(crate) fn check_indices(&self, inputs: &[Arc<Tensor>]) -> Result<(), String> {
        let parameters = self.indices.parameters().into_iter();
        let values = parameters.filter_map(|number| Some((number, inputs.get(number)?.integers())));
        self.indices.check(&values.collect())
    }

    /// Runs it, with a tensor for each input and output, all of the right size. Weights are read where they
    /// are, aliased outputs are written where their input is, and only the others are copied.
    pub(crate) fn execute(&self, inputs: &[Arc<Tensor>], outputs: &[Arc<Tensor>]) -> Result<Ran, PjrtError> {
        let mut ran = Ran::default();
        let mut views = Vec::with_capacity(inputs.len());
        for (number, (tensor, Binding { shape, .. })) in inputs.iter().zip(&self.inputs).enumerate() {
            let is_aliased = self.aliases.iter().any(|alias| alias.parameter == number);
            views.push(if is_aliased {
                Arc::new(tensor.writable_view(self.client, shape)?)
            } else {
                let (view, shared) = tensor.view(self.client, shape)?;
                ran.inputs_copied += u64::from(!shared);
                view
            });
        }
        let results = self.executable.execute(&views.iter().map(|view| &**view).collect::<Vec<_>>())?;
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
        Ok(ran)
    }
}
