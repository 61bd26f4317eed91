//! The certificates and revocation lists that came along with a quote.

use caveau_snp::certificate::Certificate;
use caveau_snp::check::Refusal;
use caveau_snp::crl::Crl;

use crate::chain::SIGNER_NAME;
use crate::collateral::{Collateral, pem_blocks};
use crate::quote::{Certification, Quote};

/// All certificates and lists that came along, DER.
pub(crate) struct Ders {
    pck_chain: Vec<Vec<u8>>,
    others: Vec<Vec<u8>>,
    crls: Vec<Vec<u8>>,
}

impl Ders {
    /// The quote's own chain counts before the one of the collateral.
    pub(crate) fn of(quote: &Quote<'_>, collateral: &Collateral) -> Result<Self, Refusal> {
        let own = match quote.certification {
            Certification::Chain(pem) => {
                let text = std::str::from_utf8(pem).ok().and_then(pem_blocks);
                let blocks = text.filter(|blocks| !blocks.is_empty() && blocks.len() <= 8).ok_or_else(|| {
                    Refusal::new(
                        "certificate-malformed",
                        "the quote's chain of certificates is no PEM with one to eight",
                    )
                })?;
                blocks.into_iter().map(|(_, der)| der).collect()
            }
            Certification::Lookup(_) => Vec::new(),
        };
        let pck_chain = if own.is_empty() { collateral.pck_chain.clone() } else { own };
        if pck_chain.is_empty() {
            let sentence = "the quote names its platform's certificate without having it: give its chain";
            return Err(Refusal::new("certificate-missing", sentence));
        }
        Ok(Self { pck_chain, others: collateral.certificates.clone(), crls: collateral.crls.clone() })
    }

    pub(crate) fn read(self) -> Result<(String, ReadDers), Refusal> {
        let malformed = |error: &dyn std::fmt::Display| {
            Refusal::new("certificate-malformed", format!("failed to read a certificate: {error}"))
        };
        for der in self.pck_chain.iter().chain(&self.others) {
            Certificate::parse(der).map_err(|error| malformed(&error))?;
        }
        for der in &self.crls {
            Crl::parse(der)
                .map_err(|error| Refusal::new("crl-malformed", format!("failed to read a revocation list: {error}")))?;
        }
        let count = self.pck_chain.len().saturating_add(self.others.len());
        Ok((format!("{count} certificates and {} revocation lists", self.crls.len()), ReadDers(self)))
    }
}

/// Certificates and lists all of which can be read.
pub(crate) struct ReadDers(Ders);

impl ReadDers {
    pub(crate) fn view(&self) -> Certificates<'_> {
        fn parse_all(ders: &[Vec<u8>]) -> Vec<Certificate<'_>> {
            ders.iter().filter_map(|der| Certificate::parse(der).ok()).collect()
        }
        Certificates {
            pck_chain: parse_all(&self.0.pck_chain),
            others: parse_all(&self.0.others),
            crls: self.0.crls.iter().filter_map(|der| Crl::parse(der).ok()).collect(),
        }
    }
}

/// All certificates and lists that came along.
pub(crate) struct Certificates<'a> {
    pck_chain: Vec<Certificate<'a>>,
    others: Vec<Certificate<'a>>,
    pub(crate) crls: Vec<Crl<'a>>,
}

impl<'a> Certificates<'a> {
    pub(crate) fn all(&self) -> impl Iterator<Item = &Certificate<'a>> {
        self.pck_chain.iter().chain(&self.others)
    }

    pub(crate) fn signers(&self) -> impl Iterator<Item = &Certificate<'a>> {
        self.all().filter(|certificate| certificate.common_name() == SIGNER_NAME)
    }

    /// The certificate of the platform's key, and that of its authority.
    pub(crate) fn pck(&self) -> (Option<&Certificate<'a>>, Option<&Certificate<'a>>) {
        let leaf = self.pck_chain.first();
        let is_issuer = |leaf: &Certificate<'a>, other: &Certificate<'a>| {
            other.subject() == leaf.issuer() && other.subject() != other.issuer()
        };
        let authority = leaf.and_then(|leaf| self.all().find(|other| is_issuer(leaf, other)));
        (leaf, authority)
    }
}
