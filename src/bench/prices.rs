use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What an hour of each instance costs, and when and where somebody looked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceTable {
    pub date: String,
    pub region: String,
    pub source: String,
    pub usd_per_hour: BTreeMap<String, f64>,
}

/// An instance that a target runs on, or would.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Price {
    pub instance: String,
    pub usd_per_hour: f64,
    /// Date, region and source of the price.
    pub basis: String,
}

#[derive(Debug, thiserror::Error)]
pub enum PriceError {
    #[error("the prices {path} cannot be read")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("the prices {path} are no table of date, region, source and [usd_per_hour]")]
    Malformed { path: PathBuf, source: toml::de::Error },
    #[error("the prices have no {instance} (there is: {known})")]
    Unknown { instance: String, known: String },
    #[error("the price of {instance} is {usd_per_hour}, which is none")]
    Absurd { instance: String, usd_per_hour: f64 },
}

const SHIPPED: &str = include_str!("prices.toml");

impl PriceTable {
    /// The table that comes with mondai.
    pub fn shipped() -> Self {
        toml::from_str(SHIPPED).expect("the table that is shipped is sound; a test says so")
    }

    /// # Errors
    /// The file cannot be read or is no such table.
    pub fn open(path: &Path) -> Result<Self, PriceError> {
        let unreadable = |source| PriceError::Unreadable { path: path.to_owned(), source };
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        toml::from_str(&text).map_err(|source| PriceError::Malformed { path: path.to_owned(), source })
    }

    /// # Errors
    /// The table has no price of it, or one that is not above zero.
    pub fn of(&self, instance: &str) -> Result<Price, PriceError> {
        let Some(&usd_per_hour) = self.usd_per_hour.get(instance) else {
            let known = self.usd_per_hour.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(PriceError::Unknown { instance: instance.to_owned(), known });
        };
        if !(usd_per_hour > 0.0 && usd_per_hour.is_finite()) {
            return Err(PriceError::Absurd { instance: instance.to_owned(), usd_per_hour });
        }
        let basis = format!("{}, {}: {}", self.region, self.date, self.source);
        Ok(Price { instance: instance.to_owned(), usd_per_hour, basis })
    }
}

impl Price {
    /// Of a million of what comes at this rate; `None` where nothing comes.
    pub fn usd_per_million(&self, per_second: f64) -> Option<f64> {
        (per_second > 0.0).then(|| self.usd_per_hour / 3600.0 / per_second * 1e6)
    }

    /// Of a thousand.
    pub fn usd_per_thousand(&self, per_second: f64) -> Option<f64> {
        self.usd_per_million(per_second).map(|usd| usd / 1e3)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_table_is_sound() {
        let table = PriceTable::shipped();
        for instance in table.usd_per_hour.keys() {
            let price = table.of(instance).unwrap();
            assert!(price.basis.contains("us-east-1, 2026"), "{price:?}");
        }
        assert!(table.of("abacus").unwrap_err().to_string().contains("c7i.xlarge"));
    }

    #[test]
    fn what_things_cost() {
        let price = Price { instance: "a".to_owned(), usd_per_hour: 3.6, basis: String::new() };
        // A thousandth of a dollar a second, for a hundred tokens.
        assert_eq!(price.usd_per_million(100.0).map(f64::round), Some(10.0));
        assert!((price.usd_per_thousand(2.0).unwrap() - 0.5).abs() < 1e-9);
        assert_eq!(price.usd_per_million(0.0), None);
    }

    #[test]
    fn wrong_tables_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("prices.toml");
        let check = |text: &str, instance: &str, expected: &str| {
            std::fs::write(&path, text).unwrap();
            let error = PriceTable::open(&path).and_then(|table| table.of(instance)).unwrap_err();
            assert!(error.to_string().contains(expected), "{error}");
        };
        let head = "date = 'd'\nregion = 'r'\nsource = 's'\n[usd_per_hour]\n";
        check("date = 1", "a", "prices.toml are no table");
        check(&format!("{head}a = -1"), "a", "the price of a is -1");
        check(&format!("{head}a = 1"), "b", "no b (there is: a)");
    }
}
