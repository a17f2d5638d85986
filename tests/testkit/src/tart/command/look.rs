//! What only looks: `list`, `get`, `ip`.

use std::time::{Duration, Instant};

use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::super::cache::Cache;
use super::super::config::Os;
use super::super::failure::Failure;
use super::super::guest;
use super::super::leases;
use super::super::scenario::{ListFormat, Scenario};
use super::super::vm::{VmDir, VmState};
use super::args::{Context, Format, GetArgs, IpArgs, ListArgs, Resolver};

const GB: u64 = 1_000_000_000;

pub(super) fn list(context: &Context, args: &ListArgs) -> Result<(), Failure> {
    let source = args.source.as_deref();
    if let Some(other) = source.filter(|source| !["local", "oci"].contains(source)) {
        return Err(Failure::usage("list", format!("'{other}' is not a valid <source>")));
    }
    std::thread::sleep(context.scenario.list);
    let mut rows = Vec::new();
    if source != Some("oci") {
        for vm in context.home.local_vms()? {
            vm.config()?;
            rows.push(row("local", vm.name(), &vm, &context.scenario)?);
        }
    }
    if source != Some("local") {
        for cached in Cache::of(&context.home).list()? {
            rows.push(row("OCI", cached.name, &cached.vm, &context.scenario)?);
        }
    }
    if args.quiet {
        rows.iter().for_each(|row| println!("{}", text(&row["Name"])));
    } else if args.format == Format::Json {
        println!("{}", pretty(&Value::Array(rows)));
    } else {
        print_table(&rows);
    }
    Ok(())
}

fn row(source: &str, name: String, vm: &VmDir, scenario: &Scenario) -> Result<Value, Failure> {
    let state = vm.state()?;
    let (disk, size) = (vm.size()? / GB, vm.allocated()? / GB);
    let (name_of_last, last) = match scenario.list_format {
        ListFormat::Accessed => {
            let accessed = vm.accessed()?.to_zoned(TimeZone::UTC).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            ("Accessed", json!(accessed))
        }
        ListFormat::SizeOnDisk => ("SizeOnDisk", json!(size)),
    };
    Ok(json!({
        "Source": source,
        "Name": name,
        "Disk": disk,
        "Size": size,
        name_of_last: last,
        "Running": state == VmState::Running,
        "State": state.word(),
    }))
}

pub(super) fn get(context: &Context, args: &GetArgs) -> Result<(), Failure> {
    let vm = context.home.open_vm(&args.name)?;
    let config = vm.config()?;
    let state = vm.state()?;
    let row = json!({
        "OS": if config.os == Os::Darwin { "darwin" } else { "linux" },
        "CPU": config.cpu_count,
        "Memory": config.memory_size >> 20,
        "Disk": vm.size()? / GB,
        "DiskFormat": config.disk_format,
        "Size": format!("{:.3}", vm.allocated()? as f64 / GB as f64),
        "Display": format!("{}x{}", config.display.width, config.display.height),
        "Running": state == VmState::Running,
        "State": state.word(),
    });
    if args.format == Format::Json {
        println!("{}", pretty(&row));
    } else {
        print_table(&[row]);
    }
    Ok(())
}

/// JSON as Foundation writes it: a space before each colon, slashes escaped, nothing but line ends in what is empty.
fn pretty(value: &Value) -> String {
    fn write(value: &Value, indent: &str, out: &mut String) {
        let inner = format!("{indent}  ");
        match value {
            Value::Array(items) => {
                out.push_str("[\n");
                for (number, item) in items.iter().enumerate() {
                    out.push_str(if number == 0 { "" } else { ",\n" });
                    out.push_str(&inner);
                    write(item, &inner, out);
                }
                out.push_str(&format!("\n{indent}]"));
            }
            Value::Object(fields) => {
                out.push_str("{\n");
                for (number, (key, item)) in fields.iter().enumerate() {
                    out.push_str(if number == 0 { "" } else { ",\n" });
                    out.push_str(&format!("{inner}\"{key}\" : "));
                    write(item, &inner, out);
                }
                out.push_str(&format!("\n{indent}}}"));
            }
            scalar => out.push_str(&scalar.to_string().replace('/', "\\/")),
        }
    }
    let mut out = String::new();
    write(value, "", &mut out);
    out
}

/// The table for people, without the column `Running`.
fn print_table(rows: &[Value]) {
    let columns = |row: &Value| -> Vec<(String, String)> {
        let fields = row.as_object().into_iter().flatten();
        fields.filter(|(key, _)| *key != "Running").map(|(key, value)| (key.clone(), text(value))).collect()
    };
    let Some(first) = rows.first() else { return };
    println!("{}", columns(first).into_iter().map(|(key, _)| key).collect::<Vec<_>>().join("\t"));
    for row in rows {
        println!("{}", columns(row).into_iter().map(|(_, value)| value).collect::<Vec<_>>().join("\t"));
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

pub(super) fn ip(context: &Context, args: &IpArgs) -> Result<(), Failure> {
    let vm = context.home.open_vm(&args.name)?;
    let mac = vm.config()?.mac_address;
    let host = context.home.sim.host(&context.scenario)?;
    let until = Instant::now() + Duration::from_secs(args.wait.into());
    loop {
        let reachable = match args.resolver {
            Resolver::Dhcp => true,
            Resolver::Arp => vm.running()?,
            Resolver::Agent => guest::answers(&vm),
        };
        if let Some(address) = leases::address(&host, &mac)?.filter(|_| reachable) {
            println!("{address}");
            return Ok(());
        }
        // Tart looks once a second too, and once more than it was told to.
        std::thread::sleep(Duration::from_secs(1));
        if Instant::now() >= until {
            break;
        }
    }
    let mut text = "no IP address found".to_owned();
    if !vm.running()? {
        text.push_str(", is your VM running?");
    }
    if args.resolver == Resolver::Agent {
        text.push_str(" (also make sure that Guest agent for Tart is running inside of a VM)");
    }
    Err(Failure::new(text))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::pretty;

    #[test]
    fn json_is_written_as_foundation_writes_it() {
        let text = pretty(&json!([{ "Name": "ghcr.io/a:1", "Size": 2 }]));
        assert_eq!(text, "[\n  {\n    \"Name\" : \"ghcr.io\\/a:1\",\n    \"Size\" : 2\n  }\n]");
        assert_eq!(pretty(&json!([])), "[\n\n]");
    }
}
