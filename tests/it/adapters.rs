//! LoRA adapters through the front door: in both forms on both kinds of base, by name, and bad ones.

use crate::default_model::models_dir;
use crate::logits::check_golden;
use crate::models::{copied_folder, corrupted, fixture, fixture_path};
use mondai::model::{Model, TensorType};
use mondai::quiz::PromptTemplates;
use serde_json::{Value, json};
use std::path::Path;

const OF_FOLDER: &str = "lora-of-llama";
const OF_GGUF: &str = "lora-of-gguf-Q4_1";

fn folder_base() -> Model {
    fixture("llama")
}

fn gguf_base() -> Model {
    fixture("gguf-Q4_1.gguf")
}

#[test]
fn merged_models_agree_with_transformers() {
    for (base, name) in [(folder_base as fn() -> Model, OF_FOLDER), (gguf_base, OF_GGUF)] {
        for file in [name.to_owned(), format!("{name}.gguf"), format!("{name}/adapter_model.safetensors")] {
            check_golden(&base().with_adapter(&fixture_path(&file)).unwrap(), name);
        }
    }
}

#[test]
fn a_merged_tensor_is_f32_however_it_is_read() {
    let (base, merged) = (gguf_base(), gguf_base().with_adapter(&fixture_path(OF_GGUF)).unwrap());
    assert_eq!(merged.name, format!("gguf-Q4_1+{OF_GGUF}"));
    assert_eq!(merged.adapters(), [fixture_path(OF_GGUF)]);
    let mut differing = 0;
    for (plain, tensor) in base.tensors().zip(merged.tensors()) {
        let whole = tensor.to_f32();
        differing += usize::from(whole != plain.to_f32());
        let adapted = tensor.name().starts_with("blk.") && !tensor.name().ends_with("norm.weight");
        assert_eq!(whole != plain.to_f32(), adapted, "{}", tensor.name());
        let expected = if adapted { TensorType::F32 } else { plain.tensor_type() };
        assert_eq!(tensor.tensor_type(), expected, "{}", tensor.name());
        assert_eq!(tensor.bytes().len(), tensor.byte_len(), "{}", tensor.name());
        let columns = *tensor.shape().last().unwrap();
        let mut row = vec![0.0; columns];
        for (idx, expected) in whole.chunks_exact(columns).enumerate() {
            tensor.read_rows(idx, &mut row);
            assert_eq!(row, expected, "{}: row {idx}", tensor.name());
        }
    }
    assert_eq!(differing, 7);
}

#[test]
fn an_adapter_is_a_model_of_its_own_by_name() {
    let models = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = models.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(
        "b/manifest.toml",
        &format!(
            "name = \"b\"\nlicence = \"MIT\"\nfile = \"b.gguf\"\nbytes = 1\nsha256 = \"{}\"\n[source]\n\
             kind = \"pypi-wheel\"\npackage = \"b\"\nversion = \"1\"\npath = \"b.gguf\"\n",
            "0".repeat(64)
        ),
    );
    write(
        "m/manifest.toml",
        "name = \"m\"\nlicence = \"MIT\"\nbase = \"b\"\nadapter = \"a.gguf\"\n\
         [quiz]\nlanguages = [\"en\"]\nsystem = \"Quiz.\"\nuser = \"{{ passage or topic }}\"\n",
    );
    let error = Model::open("m", models.path()).err().unwrap().to_string();
    assert!(error.contains("run `mondai pull b`"), "{error}");
    std::fs::copy(fixture_path("gguf-Q4_1.gguf"), models.path().join("b/b.gguf")).unwrap();
    let error = Model::open("m", models.path()).err().unwrap().to_string();
    assert!(error.contains("m/a.gguf"), "{error}");
    std::fs::copy(fixture_path(&format!("{OF_GGUF}.gguf")), models.path().join("m/a.gguf")).unwrap();

    let model = Model::open("m", models.path()).unwrap();
    assert_eq!(model.name, "m");
    assert_eq!(model.quiz_texts().unwrap().languages, ["en"]);
    assert!(Model::open("b", models.path()).unwrap().quiz_texts().is_none());
    check_golden(&model, OF_GGUF);
}

#[test]
fn the_tuned_model_is_the_default_one_with_an_adapter() {
    let model = Model::open("smollm2-135m-quiz", &models_dir())
        .unwrap_or_else(|error| panic!("{error}: scripts/test.sh fetches what the tests need"));
    let merged = model.tensors().filter(|tensor| tensor.tensor_type() == TensorType::F32).count();
    assert_eq!(merged, 210 + 61, "all linear layers; the norms are F32 in the base");
    let texts = model.quiz_texts().unwrap();
    assert_eq!(texts.languages, ["en"]);
    let (languages, system) = (texts.languages.clone(), texts.system.clone());
    PromptTemplates::new(languages, system, &texts.user, texts.read.as_deref()).unwrap();
}

#[test]
fn what_does_not_fit_the_base_is_named() {
    let says = |base: Model, adapter: &str| {
        base.with_adapter(&fixture_path(adapter)).err().expect(adapter).to_string()
    };
    let of_gguf = format!("{OF_GGUF}.gguf");
    assert!(
        says(folder_base(), &of_gguf).contains("tensor blk.0.attn_q.weight.lora_a: its shape is [4, 64]")
    );
    assert!(says(gguf_base(), OF_FOLDER).contains("layers.0.self_attn.q_proj.lora_A.weight: its shape is"));
    let one_layer_less = says(gguf_base(), &format!("{OF_FOLDER}.gguf"));
    assert!(one_layer_less.contains("its shape"), "{one_layer_less}");
    assert!(says(fixture("qwen2"), &of_gguf).contains("general.architecture: made for `llama`"));
    assert!(says(gguf_base(), "gguf-Q4_1.gguf").contains("general.type: it is"));
    assert!(says(gguf_base(), "llama").contains("adapter_config.json"));
    assert!(says(gguf_base(), "absent").contains("cannot read"));
}

#[test]
fn what_is_more_than_a_product_is_named() {
    let check = |option: &str, value: Value, expected: &str| {
        let folder = copied_folder(OF_GGUF);
        let path = folder.path().join("adapter_config.json");
        let mut config: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[option] = value;
        std::fs::write(&path, config.to_string()).unwrap();
        let error = gguf_base().with_adapter(folder.path()).err().expect(option).to_string();
        assert!(error.contains(expected) && error.contains(folder.path().to_str().unwrap()), "{error}");
    };
    check("use_dora", json!(true), "adapter_config.json: use_dora: true is not supported");
    check("modules_to_save", json!(["lm_head"]), "modules_to_save");
    check("bias", json!("all"), "bias");
    check("r", json!(5), "its shape is [4, 64], [5, 64] fits");
    check("r", json!(-1), "r: it is no rank");
}

#[test]
fn a_tensor_without_its_fellow_or_its_weight_is_named() {
    let check = |from: &str, to: &str, expected: &str| {
        let folder = copied_folder(OF_GGUF);
        let path = folder.path().join("adapter_model.safetensors");
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(from.len(), to.len(), "the header's length stays");
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes()).expect(from);
        std::fs::write(&path, [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat()).unwrap();
        let error = gguf_base().with_adapter(folder.path()).err().expect(expected).to_string();
        assert!(error.contains(expected), "{error}");
    };
    check("up_proj.lora_A", "up_proj.lora_C", "up_proj.lora_C.weight: it is neither a LoRA's A nor its B");
    check("layers.0.mlp.up_proj.lora_A", "layers.9.mlp.up_proj.lora_A", "up_proj.weight: its A is missing");
    check("self_attn.v_proj.lora_B", "self_attn.z_proj.lora_B", "v_proj.weight: its B is missing");
}

#[test]
fn corrupt_adapters_are_errors_or_sane() {
    let (mut errors, mut sane) = (0, 0);
    let mut check = |folder: &Path, adapter: &Path| match gguf_base().with_adapter(adapter) {
        Ok(model) => {
            model.tensors().for_each(|tensor| assert_eq!(tensor.to_f32().len(), tensor.elements()));
            sane += 1;
        }
        Err(error) => {
            assert!(error.to_string().contains(folder.to_str().unwrap()), "{error}");
            errors += 1;
        }
    };
    let gguf = std::fs::read(fixture_path(&format!("{OF_GGUF}.gguf"))).unwrap();
    for seed in 0..200 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.gguf");
        std::fs::write(&path, corrupted(&gguf, seed)).unwrap();
        check(folder.path(), &path);
    }
    for file in ["adapter_model.safetensors", "adapter_config.json"] {
        let sound = std::fs::read(fixture_path(OF_GGUF).join(file)).unwrap();
        for seed in 0..100 {
            let folder = copied_folder(OF_GGUF);
            std::fs::write(folder.path().join(file), corrupted(&sound, seed)).unwrap();
            check(folder.path(), folder.path());
        }
    }
    assert!(errors > 200 && sane > 20, "{errors} errors and {sane} sane: the cases test little");
}
