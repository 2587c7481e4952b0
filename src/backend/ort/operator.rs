//! Operators that ONNX Runtime is brought: attention, and the gate between two products.
//!
//! Its own attention is no match: `GroupQueryAttention` sums a token alone in another order than among others, so that
//! a reply would depend on what else is being written, and in standard operators attention takes a third of a step of 16
//! sequences. These are the `cpu` backend's, KV cache and all, on ONNX Runtime's threads.

use super::onnx::own;
use crate::backend::cpu::{CachedAttention, Tasks, gate};
use ort::{
    Error,
    operator::{
        ComputeContext, FromKernelContext, Kernel, KernelContext, Operator, OperatorDomain, OperatorInput,
        OperatorOutput,
    },
    value::TensorElementType::Float32,
};
use std::sync::{Arc, Mutex};

/// All of them.
pub(super) fn domain(attention: Arc<Mutex<CachedAttention>>) -> Result<OperatorDomain, Error> {
    OperatorDomain::new(own::DOMAIN)?.add(AttentionOperator(attention))?.add(GateOperator)
}

fn attribute<'a, T: FromKernelContext<'a>>(context: &KernelContext<'a>, name: &str) -> Result<T, Error> {
    context.get(name).ok_or_else(|| Error::new(format!("an operator of {} has no {name}", own::DOMAIN)))
}

fn columns<const N: usize>(context: &KernelContext<'_>) -> Result<[usize; N], Error> {
    let columns: Vec<i64> = attribute(context, own::COLUMNS)?;
    let columns: Result<[i64; N], _> = columns.try_into();
    let columns = columns.map_err(|_| Error::new(format!("{} are {N}", own::COLUMNS)))?;
    Ok(columns.map(|column| column as usize))
}

/// For the attention of every layer.
struct AttentionOperator(Arc<Mutex<CachedAttention>>);

struct AttentionKernel {
    attention: Arc<Mutex<CachedAttention>>,
    layer: usize,
    columns: [usize; 3],
}

impl Operator for AttentionOperator {
    type Kernel<'attr> = AttentionKernel;

    fn name(&self) -> &str {
        own::ATTENTION
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [const { OperatorInput::required(Float32) }; 3]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> Result<AttentionKernel, Error> {
        let (attention, layer) = (Arc::clone(&self.0), attribute::<i64>(context, own::LAYER)? as usize);
        Ok(AttentionKernel { attention, layer, columns: columns(context)? })
    }
}

impl Kernel for AttentionKernel {
    fn compute(&mut self, context: &ComputeContext) -> Result<(), Error> {
        let input = |idx| context.input(idx)?.ok_or_else(|| Error::new("an input is missing"));
        let inputs = [input(0)?, input(1)?, input(2)?];
        let mut sources = [(&[][..], 0); 3];
        for ((source, input), column) in sources.iter_mut().zip(&inputs).zip(self.columns) {
            *source = (input.try_extract_tensor::<f32>()?.1, column);
        }
        let mut attention =
            self.attention.lock().map_err(|_| Error::new("attention panicked in a step before"))?;
        let shape = attention.output_shape(self.layer).map(|size| size as i64);
        let mut output = context.output(0, shape)?.ok_or_else(|| Error::new("the output is missing"))?;
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;
        attention.attend(self.layer, &mut RuntimeTasks(context), sources, output);
        Ok(())
    }
}

struct GateOperator;

struct GateKernel {
    columns: [usize; 2],
    width: i64,
}

impl Operator for GateOperator {
    type Kernel<'attr> = GateKernel;

    fn name(&self) -> &str {
        own::GATED_ACTIVATION
    }

    fn inputs(&self) -> impl IntoIterator<Item = OperatorInput> {
        [OperatorInput::required(Float32)]
    }

    fn outputs(&self) -> impl IntoIterator<Item = OperatorOutput> {
        [OperatorOutput::required(Float32)]
    }

    fn create_kernel<'attr>(&self, context: &KernelContext<'attr>) -> Result<GateKernel, Error> {
        Ok(GateKernel { columns: columns(context)?, width: attribute(context, own::WIDTH)? })
    }
}

impl Kernel for GateKernel {
    fn compute(&mut self, context: &ComputeContext) -> Result<(), Error> {
        let input = context.input(0)?.ok_or_else(|| Error::new("the input is missing"))?;
        let (shape, product) = input.try_extract_tensor::<f32>()?;
        let rows = shape[0];
        let mut output =
            context.output(0, [rows, self.width])?.ok_or_else(|| Error::new("the output is missing"))?;
        let (_, output) = output.try_extract_tensor_mut::<f32>()?;
        gate(&mut RuntimeTasks(context), (product, rows as usize), self.columns, output);
        Ok(())
    }
}

/// ONNX Runtime's threads.
struct RuntimeTasks<'a>(&'a ComputeContext);

impl Tasks for RuntimeTasks<'_> {
    fn run(&mut self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        // It is refused before it begins, or not at all.
        if tasks <= 1 || self.0.par_for(tasks, 0, task).is_err() {
            (0..tasks).for_each(task);
        }
    }
}
