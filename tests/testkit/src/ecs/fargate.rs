//! What Fargate offers: sizes and platform versions.

use super::refusal::reported;
use super::wire::Refusal;

const GIB: i64 = 1024;

/// Checks a pair of CPU units and MiB.
pub(super) fn check_size(cpu: i64, memory: i64) -> Result<(), Refusal> {
    let (low, high, step) = match cpu {
        256 => {
            let fits = [512, GIB, 2 * GIB].contains(&memory);
            return if fits { Ok(()) } else { Err(reported::no_fargate_size("256", &memory.to_string())) };
        }
        512 => (1, 4, 1),
        1024 => (2, 8, 1),
        2048 => (4, 16, 1),
        4096 => (8, 30, 1),
        8192 => (16, 60, 4),
        16_384 => (32, 120, 8),
        _ => return Err(reported::no_fargate_size(&cpu.to_string(), &memory.to_string())),
    };
    let fits = memory % (step * GIB) == 0 && (low * GIB..=high * GIB).contains(&memory);
    if fits { Ok(()) } else { Err(reported::no_fargate_size(&cpu.to_string(), &memory.to_string())) }
}

/// Reads CPU as the API allows it: units, or vCPU with a decimal point.
pub(super) fn read_cpu(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    match lower.strip_suffix("vcpu") {
        Some(count) => scaled(count.trim()),
        None => lower.parse().ok(),
    }
}

/// Reads memory as the API allows it: MiB, or GB with a decimal point.
pub(super) fn read_memory(text: &str) -> Option<i64> {
    let lower = text.trim().to_ascii_lowercase();
    match lower.strip_suffix("gb") {
        Some(count) => scaled(count.trim()),
        None => lower.parse().ok(),
    }
}

/// A decimal number times 1,024.
fn scaled(text: &str) -> Option<i64> {
    let count: f64 = text.parse().ok()?;
    let scaled = count * 1024.0;
    // Bounded just before, and whole.
    #[allow(clippy::cast_possible_truncation)]
    ((0.0..1e9).contains(&scaled) && scaled.fract() == 0.0).then_some(scaled as i64)
}

/// The platform version that a name means on Linux; none when there is no such version.
pub(super) fn platform_version(name: Option<&str>) -> Option<&'static str> {
    match name.unwrap_or("LATEST") {
        "LATEST" | "1.4.0" => Some("1.4.0"),
        "1.3.0" => Some("1.3.0"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_documented_sizes_exist() {
        for (cpu, gib) in [(512, 1), (512, 4), (1024, 2), (1024, 8), (2048, 16), (4096, 8), (4096, 30)] {
            assert_eq!(check_size(cpu, gib * GIB), Ok(()), "{cpu} with {gib} GiB");
        }
        for (cpu, gib) in [(8192, 16), (8192, 60), (16_384, 32), (16_384, 120), (256, 1), (256, 2)] {
            assert_eq!(check_size(cpu, gib * GIB), Ok(()), "{cpu} with {gib} GiB");
        }
        assert_eq!(check_size(256, 512), Ok(()));
        for (cpu, mib) in
            [(256, 3072), (512, 512), (1024, 1024), (1024, 9216), (1024, 2500), (8192, 18_432), (300, 1024)]
        {
            assert!(check_size(cpu, mib).is_err(), "{cpu} with {mib} MiB");
        }
    }

    #[test]
    fn sizes_are_read_in_both_units() {
        assert_eq!(
            (read_cpu("1024"), read_cpu(".5 vCPU"), read_cpu("1 vcpu")),
            (Some(1024), Some(512), Some(1024))
        );
        assert_eq!(
            (read_memory("2048"), read_memory("0.5GB"), read_memory("2 GB")),
            (Some(2048), Some(512), Some(2048))
        );
        assert_eq!((read_cpu("much"), read_memory("-1GB")), (None, None));
    }
}
