# %% [markdown]
# # An analysis from start to end
# Run the cells in VS Code, Spyder or jupytext, or run `python examples/walkthrough.py`.
# Figures and the report are written to the folder `walkthrough`.

# %% Pairs: synthetic here; read your own from a file
from pathlib import Path

from pairmatch import Matcher, Pairs, Profile, leakage
from pairmatch.evaluation.diagnostics import hubness, photo_traits, shortcuts, slices
from pairmatch.experiments.demo import draw_people
from pairmatch.report import matcher_report, write_report
from pairmatch.report.figures import learners_figure, recall_figure

folder = Path("walkthrough")
pairs = Pairs.read(draw_people(folder / "people", pairs=100))
attributes = list(pairs.people[0].attributes)
print(f"{len(pairs)} pairs of {len(pairs.people)} people; attributes: {attributes}")

# %% Split by person, and check for one person under two ids, which a split cannot know
train, validation, test = pairs.split(0.70, 0.15, seed=0)
print(len(train), len(validation), len(test))
print(leakage(train, validation, test))

# %% Fit: extract each person's features once, then train the head
matcher = Matcher(backbone="descriptor", metadata=None, store=folder / "store.sqlite")
matcher.fit(train, validation)
print(f"{len(matcher.history)} epochs, last: {matcher.history[-1]}")
for note in matcher.notes:
    print(note)

# %% Evaluate on a single split; note how wide the intervals are
evaluation = matcher.evaluate(test)
print(evaluation)
print(evaluation.compare(evaluation.frozen, name="trained", baseline="frozen"))
recall_figure(evaluation).savefig(folder / "recall.png")

# %% Cross-validate: test every pair, next to simple baselines
result = matcher.cross_validate(pairs, ["frozen", "centred", "ridge"], repeats=1)
print(result)
for comparison in result.comparisons("frozen"):
    print(comparison)
learners_figure(result).savefig(folder / "learners.png")

# %% Exposure: who is shown, and who never is
e_a = matcher.embed([pairs.profiles[a] for a in test.ids_a], side="a")
e_b = matcher.embed([pairs.profiles[b] for b in test.ids_b], side="b")
print(hubness(e_a, e_b, k=5))

# %% Results by group: the same metrics by attribute of the query person
regions_a = [pairs.profiles[a].attributes["region"] for a in pairs.ids_a]
regions_b = [pairs.profiles[b].attributes["region"] for b in pairs.ids_b]
for group in slices(result, "trained", "region", regions_a, regions_b):
    size = f"{group.metrics.queries} queries" + (
        ", too few to conclude much" if group.small else ""
    )
    print(f"{group.attribute} {group.value}: MRR {group.metrics.mrr:.3f} ({size})")

# %% Shortcuts: how much of the ranking do sharpness, brightness or color explain?
data = matcher.paired_features(pairs)
traits_a = photo_traits([pairs.profiles[a] for a in pairs.ids_a])
traits_b = photo_traits([pairs.profiles[b] for b in pairs.ids_b])
traits = {name: (traits_a[name], traits_b[name]) for name in traits_a}
for shortcut in shortcuts(data, traits, "ridge", repeats=1):
    explained = f"explains {100 * shortcut.explained:.0f} % of the scores"
    print(f"{shortcut.name}: MRR {shortcut.metrics.mrr:.3f} on its own, {explained}")

# %% Recommend candidates for a new person, filtered by a rule
new_person = Profile("new", images=pairs.people[0].images)
candidates = [pairs.profiles[b] for b in test.ids_b]
for candidate in matcher.recommend(new_person, candidates, k=3, where="age >= 30"):
    profile = candidate.profile
    print(candidate.rank, profile.id, profile.attributes["age"], round(candidate.score, 3))

# %% Save, load, report
matcher.save(folder / "matcher")
loaded = Matcher.load(folder / "matcher", store=folder / "store.sqlite")
assert (loaded.embed(test.people) == matcher.embed(test.people)).all()
report = matcher_report(matcher, train, validation, test, evaluation, title="Walkthrough")
write_report(folder / "report.html", report)
print(f"Open {folder / 'report.html'}.")
