//! The bill of materials of a guest: what is in it, from where, under which licence.
//!
//! ```text
//!   guest ─┬─▶ kernel ─▶ the package that it is built from (pedigree)
//!          ├─▶ initrd.img ─┬─▶ modules
//!          │               └─▶ agent ─┬─▶ crates ─▶ crates
//!          ├─▶ command lines          └─▶ libraries, the standard library
//!          └─▶ firmware, option ROMs
//! ```
//!
//! All of it is what guest.json and the part `agent.json` say; nothing is looked up. It has no time and no random number: the same
//! guest gives the same bytes. The SHA-256 of guest.json is the document's subject's, so that it can be told what it is about.

mod cyclonedx;

use std::collections::{BTreeMap, BTreeSet};

use cyclonedx::{Bom, Component, Dependency, Hash, LicenseChoice, Lifecycle, Metadata, Pedigree, Tools, cargo, deb};

use crate::parts::INITRD;
use crate::{
    AGENT_CONTENTS_FILE, AgentContents, CrateInfo, LibraryInfo, Manifest, Origin, Part, RUST_TOOLCHAIN, Role, Sha256,
};

/// The kernel's licence, as its file COPYING states it.
const KERNEL_LICENSE: &str = "GPL-2.0-only WITH Linux-syscall-note";

const GUEST: &str = "guest";
const KERNEL: &str = "kernel";

/// The bill of materials in CycloneDX 1.6, JSON, of the guest that `manifest` describes, whose file has the SHA-256 `described`,
/// and whose agent has these `contents`.
#[must_use]
pub fn sbom(manifest: &Manifest, described: Sha256, contents: &AgentContents) -> String {
    let mut bill = Bill::default();
    bill.kernel(manifest);
    bill.parts(manifest);
    bill.modules(manifest);
    bill.agent(manifest, contents);
    let direct = bill.direct.clone();
    bill.edges.entry(GUEST.to_owned()).or_default().extend(direct);
    let guest = Component {
        kind: "platform",
        bom_ref: Some(GUEST.to_owned()),
        name: "caveau-guest".to_owned(),
        version: Some(manifest.agent.version.clone()),
        hashes: Hash::only(described),
        ..Component::default()
    };
    let guest = guest.with("described-by", crate::MANIFEST_FILE).with("svn", manifest.svn.to_string());
    let tool = Component {
        kind: "application",
        name: "caveau".to_owned(),
        version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        ..Component::default()
    };
    let metadata = Metadata {
        lifecycles: vec![Lifecycle { phase: "build" }],
        tools: Tools { components: vec![tool] },
        component: guest,
    };
    let dependencies = bill.edges.into_iter();
    let dependencies =
        dependencies.map(|(of, depends_on)| Dependency { of, depends_on: depends_on.into_iter().collect() });
    Bom::new(metadata, bill.components, dependencies.collect()).to_json()
}

/// A bill under way.
#[derive(Default)]
struct Bill {
    components: Vec<Component>,
    /// What the guest as a whole is made of, by reference.
    direct: Vec<String>,
    /// What each component needs, by reference.
    edges: BTreeMap<String, BTreeSet<String>>,
}

impl Bill {
    fn add(&mut self, component: Component) {
        if let Some(name) = &component.bom_ref {
            self.edges.entry(name.clone()).or_default();
        }
        self.components.push(component);
    }

    fn needs(&mut self, of: &str, what: String) {
        self.edges.entry(of.to_owned()).or_default().insert(what);
    }

    fn kernel(&mut self, manifest: &Manifest) {
        let kernel = &manifest.kernel;
        let mut component = Component {
            kind: "operating-system",
            bom_ref: Some(KERNEL.to_owned()),
            name: "linux".to_owned(),
            version: Some(kernel.release.clone()),
            scope: Some("required"),
            licenses: vec![LicenseChoice::expression(KERNEL_LICENSE)],
            ..Component::default()
        };
        component = component.with("banner", &kernel.banner);
        if let Some(package) = &kernel.package {
            let ancestor = Component {
                kind: "file",
                name: package.name.clone(),
                version: Some(package.version.clone()),
                hashes: Hash::only(package.sha256),
                purl: Some(deb(&package.name, &package.version)),
                ..Component::default()
            };
            component.pedigree = Some(Pedigree { ancestors: vec![ancestor] });
        }
        if let Some(build) = kernel.package.as_ref().and_then(|package| package.build.as_ref()) {
            component = component
                .with("options-sha256", build.options_sha256)
                .with("configuration-sha256", build.config_sha256)
                .with("compiler", &build.compiler)
                .with("linker", &build.linker);
        }
        self.add(component);
    }

    /// The files of the folder that are measured.
    fn parts(&mut self, manifest: &Manifest) {
        for (name, part) in manifest.parts.iter().filter(|(name, _)| *name != AGENT_CONTENTS_FILE) {
            let reference = format!("part:{name}");
            let firmware = manifest.tees.values().any(|info| info.firmware.contains(name));
            let kernel = manifest.tees.values().any(|info| info.kernel == *name);
            let component = file(if firmware { "firmware" } else { "file" }, &reference, name, *part);
            let measured = manifest.tees.iter().filter(|(_, info)| {
                info.firmware.contains(name) || [&info.kernel, &info.initrd, &info.cmdline].contains(&name)
            });
            let component = measured.fold(component, |part, (tee, _)| part.with("measured-by", tee.to_string()));
            let component = match manifest.packages.get(name) {
                Some(package) => {
                    let path = package.path.display().to_string();
                    let purl = Some(deb(&package.name, &package.version));
                    Component { version: Some(package.version.clone()), purl, ..component }
                        .with("package", &package.name)
                        .with("path", path)
                }
                None => component,
            };
            self.add(component);
            if kernel {
                self.needs(&reference, KERNEL.to_owned());
            }
            self.direct.push(reference);
        }
    }

    fn modules(&mut self, manifest: &Manifest) {
        for module in &manifest.modules {
            let reference = format!("module:{}", module.name);
            let component = Component {
                kind: "device-driver",
                bom_ref: Some(reference.clone()),
                name: module.name.clone(),
                version: Some(manifest.kernel.release.clone()),
                scope: Some("required"),
                hashes: Hash::only(module.sha256),
                licenses: Vec::new(),
                ..Component::default()
            };
            let tees = module.tee.iter().map(ToString::to_string);
            self.add(tees.fold(component, |component, tee| component.with("loaded-by", tee)));
            self.needs(&reference, KERNEL.to_owned());
            self.needs(&format!("part:{INITRD}"), reference);
        }
    }

    fn agent(&mut self, manifest: &Manifest, contents: &AgentContents) {
        let references: BTreeMap<String, String> =
            contents.crates.iter().map(|info| (info.id(), reference(info))).collect();
        for info in &contents.crates {
            let is_agent = info.id() == contents.agent;
            let component = crate_component(info);
            self.add(if is_agent { program(component, manifest) } else { component });
            for needed in info.dependencies.iter().filter_map(|id| references.get(id)) {
                self.needs(&reference(info), needed.clone());
            }
        }
        let Some(agent) = references.get(&contents.agent) else { return };
        self.needs(&format!("part:{INITRD}"), agent.clone());
        for library in &contents.libraries {
            let component = library_component(library);
            let reference = component.bom_ref.clone();
            self.add(component);
            reference.into_iter().for_each(|reference| self.needs(agent, reference));
        }
    }
}

/// A file of the guest's folder.
fn file(kind: &'static str, reference: &str, name: &str, part: Part) -> Component {
    Component {
        kind,
        bom_ref: Some(reference.to_owned()),
        name: name.to_owned(),
        scope: Some("required"),
        hashes: Hash::only(part.sha256),
        ..Component::default()
    }
}

/// By what a crate is named in the document.
fn reference(info: &CrateInfo) -> String {
    format!("crate:{}", info.id())
}

fn crate_component(info: &CrateInfo) -> Component {
    let excluded = match info.role {
        Role::Linked => None,
        Role::Build => Some("it ran in a build script or a procedural macro and is not in the program"),
        Role::ProceduralMacro => Some("a procedural macro: it ran in the compiler and is not in the program"),
    };
    let component = Component {
        kind: "library",
        bom_ref: Some(reference(info)),
        name: info.name.clone(),
        version: Some(info.version.clone()),
        scope: Some(if excluded.is_none() { "required" } else { "excluded" }),
        hashes: info.checksum.into_iter().flat_map(Hash::only).collect(),
        licenses: crate_license(info).into_iter().collect(),
        purl: Some(cargo(&info.name, &info.version, info.origin == Origin::Workspace)),
        ..Component::default()
    };
    excluded.into_iter().fold(component, |component, reason| component.with("excluded-because", reason))
}

/// The crate's own expression; else the file that it names.
fn crate_license(info: &CrateInfo) -> Option<LicenseChoice> {
    let stated = info.license.as_deref().map(LicenseChoice::expression);
    stated.or_else(|| Some(LicenseChoice::named(&format!("see {} in its archive", info.license_file.as_ref()?))))
}

/// The crate that is the program, with what the program is.
fn program(component: Component, manifest: &Manifest) -> Component {
    let agent = &manifest.agent;
    let mut component = Component { kind: "application", hashes: Hash::only(agent.sha256), ..component };
    for text in &agent.toolchain {
        component = component.with("made-by", text);
    }
    let Some(build) = &agent.build else { return component };
    component = component.with("source-sha256", build.source_sha256);
    component = build.commit.iter().fold(component, |component, commit| component.with("commit", commit));
    component = component
        .with("compiler", &build.compiler)
        .with("c-compiler", &build.c_compiler)
        .with("target", &build.target)
        .with("profile", &build.profile);
    build.flags.iter().fold(component, |component, flag| component.with("flag", flag))
}

fn library_component(library: &LibraryInfo) -> Component {
    let rust = library.package == RUST_TOOLCHAIN;
    let license = library.license.as_deref();
    Component {
        kind: "library",
        bom_ref: Some(format!("library:{}", library.file)),
        name: library.file.clone(),
        version: Some(library.version.clone()),
        scope: Some("required"),
        hashes: Hash::only(library.sha256),
        licenses: license
            .map(|name| if rust { LicenseChoice::expression(name) } else { LicenseChoice::named(name) })
            .into_iter()
            .collect(),
        purl: (!rust).then(|| deb(&library.package, &library.version)),
        ..Component::default()
    }
    .with("package", &library.package)
}

#[cfg(test)]
mod tests;
