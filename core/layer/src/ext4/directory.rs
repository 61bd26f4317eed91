//! Directories: linear lists of entries (kernel documentation, `filesystems/ext4/directory`).

use caveau_verity::BLOCK_BYTES;

use super::extents;
use crate::{
    BLOCK, LayerError,
    image::Image,
    tree::{Directory, Inode, ROOT, Tree, file_type},
};

/// Bytes of an entry before its name.
const HEADER: usize = 8;

/// Least bytes that the unused entry at a block's end has.
const LEAST_REST: usize = 12;

/// Writes all directories, each before those in it, those in the order of their inode numbers.
pub(super) fn write_all(tree: &mut Tree, image: &mut Image<'_, '_>) -> Result<(), LayerError> {
    // An own stack, since a hostile tar may nest half a million directories.
    let mut waiting = vec![(ROOT, ROOT)];
    while let Some((number, parent)) = waiting.pop() {
        let start = image.block();
        let mut inside = Vec::new();
        if let Some(directory) = tree.inode(number).and_then(Inode::directory) {
            for child in write(tree, directory, number, parent, image)? {
                inside.push((child, number));
            }
        }
        waiting.extend(inside.into_iter().rev());
        let (span, used) = extents::close(start, image)?;
        let Some(inode) = tree.inode_mut(number) else { continue };
        inode.size = u64::from(span.blocks).saturating_mul(BLOCK);
        inode.blocks = inode.blocks.saturating_add(used);
        if let Some(directory) = inode.directory_mut() {
            directory.span = span;
        }
    }
    Ok(())
}

/// Writes one directory, its entries in the order of inode numbers, then of names. Returns the directories in it.
fn write(
    tree: &Tree,
    directory: &Directory,
    number: u32,
    parent: u32,
    image: &mut Image<'_, '_>,
) -> Result<Vec<u32>, LayerError> {
    let mut children: Vec<_> = directory.entries.iter().map(|(name, number)| (*number, &**name)).collect();
    children.sort_unstable();
    let mut directories = Vec::new();
    let mut left = BLOCK_BYTES;
    for (number, name) in [(number, &b"."[..]), (parent, b"..")].into_iter().chain(children.iter().copied()) {
        let mode = tree.inode(number).map_or(0, |inode| inode.mode);
        let length = name.len().saturating_add(HEADER).checked_next_multiple_of(4).unwrap_or(BLOCK_BYTES);
        if left < length.saturating_add(LEAST_REST) {
            finish_block(left, image)?;
            left = BLOCK_BYTES;
        }
        image.write(&header(number, length, name.len() as u8, file_type_code(mode)))?;
        image.write(name)?;
        image.zero(length.saturating_sub(HEADER).saturating_sub(name.len()) as u64)?;
        left = left.saturating_sub(length);
    }
    for (number, _) in children {
        if tree.inode(number).is_some_and(|inode| inode.directory().is_some()) {
            directories.push(number);
        }
    }
    finish_block(left, image)?;
    Ok(directories)
}

/// Ends a block with an unused entry over the rest of it.
fn finish_block(left: usize, image: &mut Image<'_, '_>) -> Result<(), LayerError> {
    image.write(&header(0, left, 0, 0))?;
    image.zero(left.saturating_sub(HEADER) as u64)
}

/// An entry without its name.
fn header(number: u32, length: usize, name_length: u8, file_type: u8) -> [u8; HEADER] {
    let [n0, n1, n2, n3] = number.to_le_bytes();
    let [l0, l1] = (length as u16).to_le_bytes();
    [n0, n1, n2, n3, l0, l1, name_length, file_type]
}

/// The file type's number in directory entries.
fn file_type_code(mode: u16) -> u8 {
    match mode & file_type::MASK {
        file_type::REGULAR => 1,
        file_type::DIRECTORY => 2,
        file_type::CHARACTER => 3,
        file_type::BLOCK => 4,
        file_type::FIFO => 5,
        file_type::SYMLINK => 7,
        _ => 0,
    }
}
