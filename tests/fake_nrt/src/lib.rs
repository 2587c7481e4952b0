//! A libnrt for machines without a NeuronCore, and a compiler to go with it.
//!
//! The library `libfake_nrt.so` has the C interface of libnrt, and is stricter than it: whatever the header
//! asks of a caller is checked, and what was done wrong is counted. It runs a program's real HLO on real XLA,
//! through a PJRT plugin for CPUs. The program `neuronx-cc` takes the command line of the real one, holds HLO
//! to the real one's rules, and packs it into a file of the form of a NEFF.
//!
//! It depends on nothing of mondai: it is an independent judge of what mondai emits and calls. Nothing here
//! says anything about an accelerator's speed, and everything says that it is simulated.
//!
//! | variable, read by `nrt_init` | what it sets | default |
//! | --- | --- | --- |
//! | `NEURON_RT_VISIBLE_CORES`, `NEURON_RT_NUM_CORES` | cores of this process, as the real library has it | all |
//! | `NEURON_LOGICAL_NC_CONFIG` | physical cores in a logical one | 1, from trn2 on 2 |
//! | `NEURON_RT_ROOT_COMM_ID` | `address:port`, without which several ranks do not load | none |
//! | `NEURON_RT_EXEC_TIMEOUT` | seconds that a rank waits for the others in a step | 30 |
//! | `NEURON_FAIL_ON_NAN=1` | an execution that yields NaN returns 1003 | it returns 0 |
//! | `NEURON_RT_ALLOW_LEGACY_NEFF=1` | programs for older chips run | they do not |
//! | `FAKE_NRT_PJRT` | XLA, as `scripts/pjrt-plugin.sh` prints it | nothing can be loaded |
//! | `FAKE_NRT_CORES` | cores of the machine | 2 |
//! | `FAKE_NRT_MEMORY` | bytes of each core | 16 GiB |
//! | `FAKE_NRT_INSTANCE` | `inf2`, `trn1`, `trn1n`, `trn2`, `trn3` | `inf2` |
//! | `FAKE_NRT_VERSION` | of the library | `2.34.10.0` |
//! | `FAKE_NRT_DTYPES` | `old` or `new` numbers of types in tensor infos | `new` |
//! | `FAKE_NRT_FAULTS` | what goes wrong: `nrt_execute@5=1006;nrt_load@1=hang;nrt_execute@7+=delay:20ms;nrt_execute@*=nan`; also `nan-in-place`, `half-size` | nothing |
//! | `FAKE_NRT_REPORT` | where `nrt_close` and the end of the process write what was done, and done wrong | nowhere |
//!
//! Where no document says what the real library does, this one does what hurts most: memory is full of NaN, a
//! slice begins at a multiple of 64 bytes or not at all, an index outside fails the step before it computes, and
//! a status of 101 is the last that a core gives. Several ranks of one process are replicas of one XLA
//! program, which waits for all of them. Not simulated: ranks of several processes, `nrta_*`, two processes that
//! want the same core, and how fast anything is.
//!
//! Three functions are for tests in the same process: `fake_nrt_report`, `fake_nrt_inject`, `fake_nrt_reset`.
//!
//! Read in this order: [`hlo`] what is read of a module, [`rules`] what the compiler refuses, [`neff`] the file,
//! `runtime` what the library knows, `program`, `group` and `pjrt` how a program runs, `indices` how its indices are
//! checked, `abi` the functions, and `settings` and `faults` for what the environment can ask for.

mod abi;
mod faults;
mod group;
mod handles;
pub mod hlo;
mod indices;
mod memory;
pub mod neff;
mod pjrt;
mod program;
mod proto;
pub mod rules;
mod runtime;
mod settings;
mod status;
