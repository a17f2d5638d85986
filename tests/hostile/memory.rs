//! How much memory a controller has had.

use std::fs;

use harness::Controller;
use serde_json::Value;

/// The most memory that it ever had, in bytes.
pub fn peak(controller: &Controller) -> usize {
    let status = fs::read_to_string(format!("/proc/{}/status", controller.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    let kib: usize = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kib << 10
}

/// The memory limit of `deploy/deployment.yaml`, in bytes.
pub fn shipped_limit() -> usize {
    let deployment: Value = serde_saphyr::from_str(include_str!("../../deploy/deployment.yaml")).unwrap();
    let limit = &deployment["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"]["memory"];
    let mib: usize = limit.as_str().unwrap().strip_suffix("Mi").unwrap().parse().unwrap();
    mib << 20
}
