//! What the platform is: its firmware, product line, chip and provider.

use super::{Appraisal, Finding, NOT_IN_PROFILE, require, wrong_bits};
use crate::bits::PlatformInfo;
use crate::claims::Claims;
use crate::minima::{DATE, least_firmware, least_snp_level};
use crate::product::{Product, ProductLine};
use crate::report::SigningKey;
use crate::tcb::Tcb;

impl Appraisal<'_> {
    /// Bits that nobody asked for may be set: platforms grow new ones.
    pub(super) fn platform_info(&self) -> Finding {
        let (PlatformInfo(found), expected) = (self.claims.platform_info, self.expected.platform_info);
        if expected == Default::default() {
            return Finding::NotAsked("nothing is expected of the platform's set-up");
        }
        match wrong_bits(found, expected, PlatformInfo::names_in) {
            None => Finding::Holds(format!("the platform's set-up is {found:#x}, as expected")),
            Some(wrong) => Finding::broken("platform-info", format!("the platform's set-up {found:#x} {wrong}")),
        }
    }

    /// On any but a Milan chip's own keys, hiding the chip is a matter of taste; a VLEK's certificate names none anyway.
    pub(super) fn chip(&self) -> Finding {
        let chip_key = self.claims.signing_key == SigningKey::Vcek;
        let milan = self.claims.product == Product::Line(ProductLine::Milan);
        match (&self.claims.chip_id, &self.expected.chips) {
            (Some(chip), _) if self.expected.denied_chips.contains(chip) => {
                Finding::broken("chip-refused", format!("chip {chip} is among those that may not be used"))
            }
            (Some(chip), Some(chips)) => require(
                chips.contains(chip),
                "the chip may be used",
                "chip-refused",
                format!("chip {chip} is not among those that may be used"),
            ),
            (None, Some(_)) => {
                Finding::broken("chip-masked", "the platform hides which chip it is, and only some may be used")
            }
            (None, None) if !self.expected.denied_chips.is_empty() => {
                Finding::broken("chip-masked", "the platform hides which chip it is, and some may not be used")
            }
            // Milan's root of endorsement keys is said to be extractable by software (BadFuse, arXiv 2605.12990).
            (_, None) if milan && chip_key && self.strict => Finding::broken(
                "chip-list-needed",
                "endorsement keys of Milan may have leaked (BadFuse): say which chips may be used, or use the baseline profile",
            ),
            (Some(_), None) => Finding::NotAsked("any chip may be used"),
            (None, None) if self.expected.allow_masked_chip || !self.strict || !chip_key => {
                Finding::NotAsked("the platform may hide which chip it is")
            }
            (None, None) => Finding::broken("chip-masked", "the platform hides which chip it is"),
        }
    }

    pub(super) fn minimum_tcb(&self) -> Finding {
        let Claims { product, reported_tcb, launch_tcb, .. } = self.claims;
        let of_profile = least_snp_level(*product).filter(|_| self.strict).map(|snp| Tcb { snp, ..Tcb::default() });
        let of_owner: Vec<_> = self.expected.minima.iter().filter(|minimum| minimum.product == *product).collect();
        let dates = of_profile.map(|_| DATE.to_owned()).into_iter();
        let dates: Vec<_> =
            dates.chain(of_owner.iter().filter_map(|own| own.as_of).map(|date| date.to_string())).collect();
        let as_of = if dates.is_empty() { String::new() } else { format!(", as of {}", dates.join(" and ")) };
        let minima: Vec<Tcb> =
            of_profile.into_iter().chain(of_owner.iter().filter_map(|minimum| minimum.tcb)).collect();
        if minima.is_empty() {
            return Finding::NotAsked("no least TCB is known for this product line, and none was given");
        }
        let met = |tcb: &Tcb| minima.iter().all(|minimum| tcb.at_least(*minimum));
        let wanted = minima.iter().map(ToString::to_string).collect::<Vec<_>>().join("; and ");
        require(
            met(reported_tcb) && met(launch_tcb),
            format!("the TCB is at least ({wanted}{as_of})"),
            "minimum-tcb",
            format!("the TCB reported ({reported_tcb}) or at launch ({launch_tcb}) is below ({wanted}{as_of})"),
        )
    }

    pub(super) fn minimum_firmware(&self) -> Finding {
        let Claims { product, committed_firmware, current_firmware, .. } = self.claims;
        let of_owner = self.expected.minima.iter().filter(|minimum| minimum.product == *product);
        let least = least_firmware(*product).filter(|_| self.strict);
        let Some(least) = of_owner.filter_map(|minimum| minimum.firmware).chain(least).max() else {
            return Finding::NotAsked("no least firmware is known for this product line, and none was given");
        };
        require(
            *committed_firmware >= least && *current_firmware >= least,
            format!("the firmware is at least {least}"),
            "minimum-firmware",
            format!("the firmware (current {current_firmware}, committed {committed_firmware}) is below {least}"),
        )
    }

    pub(super) fn provisional_firmware(&self) -> Finding {
        let Claims { committed_tcb, current_tcb, committed_firmware, current_firmware, .. } = self.claims;
        if self.expected.allow_provisional_firmware {
            return Finding::NotAsked("provisional firmware is allowed");
        }
        require(
            committed_tcb == current_tcb && committed_firmware == current_firmware,
            "the firmware that runs cannot be rolled back",
            "provisional-firmware",
            format!(
                "the firmware that runs ({current_firmware}; {current_tcb}) can still be rolled back to ({committed_firmware}; {committed_tcb})"
            ),
        )
    }

    pub(super) fn minimum_version(&self) -> Finding {
        let version = self.claims.report_version;
        if !self.strict {
            return NOT_IN_PROFILE;
        }
        let broken =
            format!("the report's version is {version}, expected at least 3: it does not sign the product line");
        require(version >= 3, format!("the report's version is {version}"), "minimum-version", broken)
    }

    pub(super) fn alias_check(&self) -> Finding {
        if !self.strict {
            return NOT_IN_PROFILE;
        }
        let broken =
            "the platform has not checked its memory for aliases (BadRAM, AMD-SB-3015): its firmware needs an update";
        let complete = self.claims.platform_info.alias_check_complete();
        require(complete, "the platform has checked its memory for aliases", "alias-check", broken)
    }

    pub(super) fn tcb_order(&self) -> Finding {
        let Claims { reported_tcb, committed_tcb, current_tcb, .. } = self.claims;
        if !self.strict {
            return NOT_IN_PROFILE;
        }
        require(
            committed_tcb.at_least(*reported_tcb) && current_tcb.at_least(*committed_tcb),
            "the TCB that is reported is not above the one committed, nor that above the current one",
            "tcb-order",
            format!(
                "reported TCB ({reported_tcb}), committed ({committed_tcb}) and current ({current_tcb}) do not rise"
            ),
        )
    }

    pub(super) fn mitigations(&self) -> Finding {
        let required = self.expected.mitigations;
        if required == 0 {
            return Finding::NotAsked("no mitigation was asked for");
        }
        let has = |vector: Option<u64>| vector.is_some_and(|vector| vector & required == required);
        let both = has(self.claims.launch_mit_vector) && has(self.claims.current_mit_vector);
        let broken = format!("the mitigations {required:#x} were not all there at launch, or are not now");
        require(both, format!("the mitigations {required:#x} are there"), "mitigations", broken)
    }

    pub(super) fn product_lines(&self) -> Finding {
        let name = self.claims.product.name();
        if self.expected.denied_product_lines.contains(&self.claims.product) {
            return Finding::broken(
                "product-line-refused",
                format!("{name} is among the product lines that may not be used"),
            );
        }
        match &self.expected.product_lines {
            Some(lines) => require(
                lines.contains(&self.claims.product),
                format!("{name} may be used"),
                "product-line-refused",
                format!("{name} is not among the product lines that may be used"),
            ),
            None => Finding::NotAsked("any product line may be used"),
        }
    }

    pub(super) fn provider(&self) -> Finding {
        match (&self.claims.provider, &self.expected.provider) {
            (None, None) => Finding::NotAsked("a chip's own key signed, and no provider is expected"),
            (Some(found), Some(expected)) => require(
                found == expected,
                format!("the provider is {found}"),
                "provider",
                format!("the provider is {found}, expected {expected}"),
            ),
            (None, Some(expected)) => {
                let sentence = format!("a chip's own key signed, expected one of provider {expected}");
                Finding::broken("provider", sentence)
            }
            (Some(found), None) if self.strict => {
                let sentence = format!("a key of provider {found} signed: say whether that provider is meant");
                Finding::broken("provider", sentence)
            }
            (Some(_), None) => NOT_IN_PROFILE,
        }
    }
}
