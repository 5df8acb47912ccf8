package journey

// Withdrawn is the reason not to deliver a message that was decided, by what is known of the person now; ""
// if there is none. s is nil where nothing is known. suppressed says whether an address is never to be
// written to.
//
// A purchase counts by the decision's own rule: everything up to it is bought, and the cart was last touched
// before it. ReasonNoConsent means that nothing is known of the consent which the decision was made with: it
// is on its way to the state of a person found to be the same, or lost. A caller that may wait looks again.
func Withdrawn(s *State, r *Request, suppressed func(address string) bool) string {
	var b Brand
	if s != nil && s.Brands[r.Brand] != nil {
		b = *s.Brands[r.Brand]
	}
	if bought := b.boughtUntil(); bought != 0 && bought >= r.ChangedAt {
		return ReasonPurchased
	}
	consent, known := b.Consent[consentKey(r.Channel, r.Purpose)]
	if known && !consent.OK {
		return ReasonConsentDenied
	}
	if a, said := b.Receive[r.Channel]; said && !a.OK {
		return ReasonUnsubscribed
	}
	if r.To != "" && suppressed(r.To) {
		return ReasonSuppressedList
	}
	if !known {
		return ReasonNoConsent
	}
	return ""
}
