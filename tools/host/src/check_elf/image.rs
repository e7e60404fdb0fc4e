//! The kernel's ELF file as the checks see it: bytes by address, functions by name, the jump table.

use iced_x86::{Decoder, DecoderOptions, Instruction};
use kcore::static_key::JumpEntry;
use object::{Object, ObjectSection, ObjectSegment, ObjectSymbol, SymbolKind};

/// A function: name without hash, address, size.
pub struct Function {
    pub name: String,
    pub start: u64,
    pub end: u64,
}

/// The file.
pub struct Image<'a> {
    pub file: object::File<'a>,
    /// Functions by rising address.
    pub functions: Vec<Function>,
}

impl<'a> Image<'a> {
    /// Parse `bytes`.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, String> {
        let file = object::File::parse(bytes).map_err(|e| e.to_string())?;
        let mut functions: Vec<Function> = file
            .symbols()
            .filter(|s| s.kind() == SymbolKind::Text && s.size() != 0)
            .map(|s| Function {
                name: format!("{:#}", rustc_demangle::demangle(s.name().unwrap_or(""))),
                start: s.address(),
                end: s.address() + s.size(),
            })
            .collect();
        functions.sort_by_key(|f| f.start);
        let image = Image { file, functions };
        for needed in ["__entry_text_start", "__entry_text_end", "__start_jump_table"] {
            image.symbol(needed).ok_or(format!("symbol {needed} is missing: stripped, or not the kernel"))?;
        }
        Ok(image)
    }

    /// Address of a symbol by its exact name.
    pub fn symbol(&self, name: &str) -> Option<u64> {
        self.file.symbol_by_name(name).map(|s| s.address())
    }

    /// `len` bytes at `address`.
    pub fn bytes(&self, address: u64, len: u64) -> Option<&'a [u8]> {
        self.file.segments().find_map(|s| s.data_range(address, len).ok().flatten())
    }

    /// The functions whose name is `name`.
    pub fn function(&self, name: &str) -> Option<&Function> {
        self.functions.iter().find(|f| f.name == name)
    }

    /// The function that `address` lies in.
    pub fn function_at(&self, address: u64) -> Option<&Function> {
        self.functions.iter().find(|f| (f.start..f.end).contains(&address))
    }

    /// Bounds of the entry text.
    pub fn entry_text(&self) -> std::ops::Range<u64> {
        self.symbol("__entry_text_start").unwrap_or(0)..self.symbol("__entry_text_end").unwrap_or(0)
    }

    /// The instructions of `range`, in order.
    pub fn instructions(&self, range: std::ops::Range<u64>) -> Vec<Instruction> {
        let bytes = self.bytes(range.start, range.end - range.start).unwrap_or(&[]);
        Decoder::with_ip(64, bytes, range.start, DecoderOptions::NONE).into_iter().collect()
    }

    /// The jump table.
    pub fn jump_table(&self) -> Vec<JumpEntry> {
        let section = self.file.section_by_name("__jump_table").and_then(|s| s.data().ok()).unwrap_or(&[]);
        kcore::static_key::entries(section).map(|e| e.collect()).unwrap_or_default()
    }
}
