//! Fragments' texts: whoever holds a key that the policy names writes them, and the host chooses which it hands over.

use caveau_policy::{Enforcer, HostData, Outcome, Platform, PolicyDigest, request};

use crate::Target;

/// A fragment is loaded or refused. Whatever it says, it brings what its rule includes and nothing else.
pub(crate) const POLICY_FRAGMENT: Target =
    Target { name: "policy_fragment", run: |data| _ = loaded(data), seeds: fragments, fixtures: &[], rounds: 150 };

const ROOT: &str = "16b514057a06ad665f92c02863aca074fd5976c755d26bff16365299169e8415";

/// A policy that lets one fragment bring containers and further fragments, with parameters, and for another its rules stay.
const POLICY: &str = "package policy\n\
    api_version := \"0.12.0\"\n\
    framework_version := \"0.5.0\"\n\
    fragments := [\n\
      {\"issuer\": \"i\", \"feed\": \"a\", \"minimum_svn\": 1, \"includes\": [\"containers\", \"fragments\"],\n\
       \"parameters\": {\"command\": [\"serve\"]}},\n\
      {\"issuer\": \"i\", \"feed\": \"b\", \"minimum_svn\": \"1.0.0\", \"includes\": [\"namespace\"]},\n\
    ]\n\
    allow_dump_stacks := false\n\
    dump_stacks := data.framework.dump_stacks\n\
    get_properties := {\"allowed\": input.never}\n\
    load_fragment := data.framework.load_fragment\n\
    mount_device := data.framework.mount_device\n\
    scratch_mount := data.framework.scratch_mount\n";

/// Whether the fragment is loaded, as one of the two feeds.
fn loaded(data: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(data) else { return false };
    ["a", "b"].map(|feed| loaded_as(feed, text)).contains(&true)
}

fn loaded_as(feed: &str, text: &str) -> bool {
    let host_data = HostData::new(*PolicyDigest::of(POLICY).as_bytes());
    let mut enforcer = Enforcer::new(POLICY, &host_data).expect("a policy");
    let fragment = request::LoadFragment {
        issuer: "i".to_owned(),
        feed: feed.to_owned(),
        header_svn: None,
        receipts: Vec::new(),
        text: text.to_owned(),
    };
    let layer = request::MountDevice { target: Platform::layer_target(0), device_hash: ROOT.to_owned() };
    let scratch =
        request::ScratchMount { target: Platform::scratch_target(0), encrypted: false, medium: request::Medium::Disk };
    let loaded = match enforcer.load_fragment(&fragment) {
        Ok(granted) => {
            assert_eq!(granted.permit.feed, feed);
            let name = granted.permit.namespace.to_ascii_lowercase();
            assert!(!["framework", "api", "policy", "metadata"].contains(&name.as_str()), "a reserved name: {name}");
            enforcer.settle(granted.pending, Outcome::Done);
            true
        }
        Err(denial) => {
            drop(denial.to_string());
            assert!(enforcer.mount_device(&layer).is_err(), "a fragment that was refused counts");
            false
        }
    };
    assert!(enforcer.dump_stacks().is_err(), "a fragment set a flag");
    assert!(enforcer.get_properties().is_err(), "a fragment answers for the policy");
    assert!(enforcer.scratch_mount(&scratch).is_err(), "a fragment set a flag");
    if feed == "b" {
        assert!(enforcer.mount_device(&layer).is_err(), "a fragment brought more than its rule includes");
    }
    loaded
}

fn fragments() -> Vec<Vec<u8>> {
    let container = format!(
        "{{\"command\": parameter(\"command\"), \"env_rules\": [], \"layers\": [\"{ROOT}\"], \"mounts\": [],\n\
         \"allow_elevated\": false, \"working_dir\": \"/\", \"exec_processes\": [], \"signals\": []}}"
    );
    let nested = "{\"issuer\": \"i\", \"feed\": \"c\", \"minimum_svn\": 1, \"includes\": [\"containers\"],\n\
                  \"parameters\": {\"level\": parameter(\"level\")}}";
    let api = "parameters_api := {\"level\": {\"default\": \"debug\"}, \"command\": {}}";
    let first = format!(
        "package sidecars\n\nsvn := \"2\"\nframework_version := \"0.5.0\"\n{api}\ncontainers := [{container}]\n\
         fragments := [{nested}]\nallow_dump_stacks := true\n"
    );
    let old = first.replace("\"0.5.0\"", "\"0.1.0\"").replace("svn := \"2\"", "svn := 1");
    let lib = "package lib\nsvn := \"1.2.3\"\nframework_version := \"0.5.0\"\n\
               get_properties := {\"allowed\": true}\nmount_device := {\"allowed\": input.deviceHash == \"00\"}\n";
    vec![first.into_bytes(), old.into_bytes(), lib.as_bytes().to_vec()]
}

#[cfg(test)]
mod tests {
    use super::{fragments, loaded};

    #[test]
    fn seeds_are_loaded() {
        for seed in fragments() {
            assert!(loaded(&seed), "{}", String::from_utf8_lossy(&seed));
        }
    }
}
