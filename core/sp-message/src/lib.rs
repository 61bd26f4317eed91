//! SNP guest messages: what guest and secure processor say to each other.
