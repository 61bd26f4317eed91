//! dm-verity hash trees: superblock, tree, root hash.
