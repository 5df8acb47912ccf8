package simulate

// graphMutations are faults of the identity graph: the simulation of pkg/identity must catch each.
func graphMutations() []mutation {
	return []mutation{
		{
			name: "limit-before-the-freeze-only", breaks: "limits are judged where a join commits", graph: true,
			edits: []edit{{
				"pkg/identity/union.go", "			if no := s.policy.judge(vr.side(), vl.side(), vl.terms()); no.refused() {\n				return no, s.giveUp(ctx, l, vl)\n			}\n", "",
			}},
		},
		{
			name: "give-up-without-compare", breaks: "a join is given up only if it still is the one that was judged", graph: true,
			edits: []edit{{
				"pkg/identity/union.go", "	_, err := s.swap(ctx, l, vl, next)\n	return err\n}",
				"	now, err := s.view.fresh(ctx, l)\n	if err == nil {\n		_, err = s.swap(ctx, l, now, next)\n	}\n	return err\n}",
			}},
		},
		{
			name: "window-by-the-helper", breaks: "a window hangs on the cause of the join, not on who completes it", graph: true,
			edits: []edit{{
				"pkg/identity/union.go", "judge(vr.side(), vl.side(), vl.terms()); no.refused() {\n				return no, s.giveUp",
				"judge(vr.side(), vl.side(), terms{day: day(s.cause.Time), trusted: vl.trusted, evidence: vl.terms().evidence}); no.refused() {\n				return no, s.giveUp",
			}},
		},
		{
			name: "trust-of-the-helper", breaks: "a join is judged by the trust of its own source", graph: true,
			edits: []edit{{
				"pkg/identity/union.go", "judge(vr.side(), vl.side(), vl.terms()); no.refused() {\n				return no, s.giveUp",
				"judge(vr.side(), vl.side(), terms{day: day(vl.cause.Time), trusted: true, evidence: vl.terms().evidence}); no.refused() {\n				return no, s.giveUp",
			}},
		},
		{
			name: "late-record-slips-in", breaks: "a window counts what was linked later as well", graph: true,
			edits: []edit{{
				"pkg/identity/policy.go", "	return l.Per == 0 || int(linked) > int(today)-int(l.Per/(24*time.Hour))",
				"	return l.Per == 0 || linked <= today && int(linked) > int(today)-int(l.Per/(24*time.Hour))",
			}},
		},
		{
			name: "stale-lists-are-judged", breaks: "who is listed already is looked at anew, and not judged as another", graph: true,
			edits: []edit{{"pkg/identity/union.go", "		if vr.lists(&vl.group) { // what", "		if vr.lists(&vl.group) && maxAttempts < 0 { // what"}},
		},
		{
			name: "confirmed-while-crossed", breaks: "a link whose cause has left the store is not published", graph: true, from: 35_765,
			edits: []edit{{"pkg/identity/union.go", "	if err != nil || v.confirmed {\n		return nil, err\n	}\n	w, err", "	if err != nil {\n		return nil, err\n	}\n	w, err"}},
		},
		{
			name: "join-names-nothing", breaks: "a join names the root that it was judged with", graph: true,
			edits: []edit{
				{"pkg/identity/union.go", "return v.target == r && v.named == vr.incarnation", "return maxAttempts > 0"},
			},
		},
		{
			name: "join-follows-the-root", breaks: "behind a split a join goes on by its evidence, not by the root of before", graph: true,
			edits: []edit{
				{"pkg/identity/union.go", "		if !v.has(e.Node) {", "		if !v.has(e.Node) && maxAttempts < 0 {"},
			},
		},
		{
			name: "way-across-a-split", breaks: "a link that leads to a parted node was read before the split", graph: true,
			edits: []edit{
				{"pkg/identity/union.go", "if v.order != nil || v.parted && len(path) > 0 {", "if v.order != nil {"},
				{"pkg/identity/view.go", "settled && x.confirmed && (steps == 0 || !x.parted)", "settled && x.confirmed"},
			},
		},
		{
			name: "split-hides-merges", breaks: "merges within are published before a split", graph: true,
			edits: []edit{
				{"pkg/identity/split.go", "		case !v.confirmed:", "		case !v.confirmed && maxAttempts < 0:"},
			},
		},
		{
			name: "later-split-is-undone", breaks: "who was parted by a later split is left alone", graph: true,
			edits: []edit{
				{"pkg/identity/split.go", "if v.parted && v.incarnation >= generation {", "if v.parted && v.origin == r {"},
			},
		},
		{
			name: "cuts-stay-behind", breaks: "a join takes cuts over", graph: true,
			edits: []edit{
				{"pkg/identity/policy.go", "if len(winner.cuts)+len(loser.cuts) > 0 {", "if len(winner.cuts)+len(loser.cuts) < 0 {"},
			},
		},
		{
			name: "blocked-leaves-a-link", breaks: "the link of an identifier that is blocked is published all the same", graph: true,
			edits: []edit{
				{"pkg/identity/resolver.go", "		for _, n := range b.blocked[i] { // its merge is to be published all the same", "		for _, n := range b.blocked[-1-i] {"},
			},
		},
	}
}
