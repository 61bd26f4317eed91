//! Containers of any kind, for properties.

use caveau_group::{Container, ImageParts, Overrides};
use proptest::{collection::vec, prelude::*};

prop_compose! {
    /// Any container that can be asked for.
    pub(crate) fn container()(
        command in vec("\\PC{1,12}|[\"\\\\\n\t\u{1}-\u{1f}{}$%`]{1,6}", 1..4),
        env in vec("[A-Z]{1,4}=(\\PC{0,12}|[\"\\\\\n{}$]{0,6})", 0..5),
        roots in vec("[0-9a-f]{64}", 1..4),
        working_dir in "(/[a-z.é ]{1,5}x){0,3}",
        user in "|[0-9]{1,5}|[a-z]{1,5}(:[0-9]{1,4})?",
        flags in any::<[bool; 4]>(),
        tmpfs in proptest::option::of("/[a-c]{1,3}"),
    ) -> Container {
        let [privileged, no_new_privileges, read_only, stdio] = flags;
        let image = ImageParts {
            reference: "registry.example/image:1".to_owned(),
            layers: roots.iter().map(|root| root.parse().unwrap()).collect(),
            cmd: command,
            env,
            working_dir,
            user,
            ..ImageParts::default()
        };
        let tmpfs = tmpfs.iter().map(|path| path.parse().unwrap()).collect();
        let overrides = Overrides { privileged, no_new_privileges, read_only, stdio, tmpfs, ..Overrides::default() };
        Container::from_image(image, overrides).unwrap()
    }
}
