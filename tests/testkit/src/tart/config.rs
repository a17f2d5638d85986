//! `config.json`: what a VM is made of.

use std::path::Path;

use rand::Rng;
use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// A VM's `config.json`, with Tart's own keys.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct VmConfig {
    pub version: u32,
    pub os: Os,
    pub arch: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ecid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hardware_model: Option<String>,
    pub cpu_count_min: u32,
    pub cpu_count: u32,
    pub memory_size_min: u64,
    pub memory_size: u64,
    pub mac_address: String,
    pub display: Display,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_refit: Option<bool>,
    #[serde(default = "raw")]
    pub disk_format: String,
}

/// The guest's system. Apple counts macOS guests alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Os {
    /// macOS.
    Darwin,
    /// Linux.
    Linux,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Display {
    pub width: u32,
    pub height: u32,
}

fn raw() -> String {
    "raw".to_owned()
}

impl VmConfig {
    pub fn new(os: Os, cpu: u32, memory_mb: u64) -> Self {
        Self {
            version: 1,
            os,
            arch: "arm64".to_owned(),
            ecid: (os == Os::Darwin).then(random_id),
            hardware_model: (os == Os::Darwin).then(|| "YnBsaXN0MDA=".to_owned()),
            cpu_count_min: 2,
            cpu_count: cpu,
            memory_size_min: 2 << 30,
            memory_size: memory_mb << 20,
            mac_address: random_mac(),
            display: Display { width: 1024, height: 768 },
            display_refit: None,
            disk_format: raw(),
        }
    }

    pub fn read(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read(path)?;
        let config: Self = serde_json::from_slice(&text).map_err(|_| unreadable())?;
        if is_mac(&config.mac_address) { Ok(config) } else { Err(unreadable()) }
    }

    /// Writes it in place, as Tart does: whoever holds the lock on the file keeps it.
    pub fn write(&self, path: &Path) -> Result<(), Failure> {
        let text = serde_json::to_vec_pretty(self).map_err(|_| unreadable())?;
        Ok(std::fs::write(path, text)?)
    }
}

fn unreadable() -> Failure {
    Failure::foreign("The data couldn’t be read because it isn’t in the correct format.")
}

fn is_mac(text: &str) -> bool {
    let parts: Vec<&str> = text.split(':').collect();
    parts.len() == 6 && parts.iter().all(|part| part.len() <= 2 && u8::from_str_radix(part, 16).is_ok())
}

/// A random MAC address of the local kind.
pub(super) fn random_mac() -> String {
    let mut bytes = [0; 6];
    rand::rng().fill_bytes(&mut bytes);
    bytes[0] = (bytes[0] & 0xfc) | 0x02;
    bytes.map(|byte| format!("{byte:02x}")).join(":")
}

/// A random machine identifier.
pub(super) fn random_id() -> String {
    uuid::Uuid::new_v4().to_string()
}
