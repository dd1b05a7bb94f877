# %% [markdown]
# # A walk through an analysis
# Cells for VS Code, Spyder or jupytext; `python examples/walkthrough.py` runs them all. Pictures of
# the figures and the
# report go into the folder `walkthrough`.

# %% Pairs: drawn here, yours from a file
from pathlib import Path

from pairmatch import Matcher, Pairs, Profile, leakage
from pairmatch.evaluation.diagnostics import hubness, photo_traits, shortcuts, slices
from pairmatch.experiments.demo import draw_people
from pairmatch.report import matcher_report, write_report
from pairmatch.report.figures import learners_figure, recall_figure

folder = Path("walkthrough")
pairs = Pairs.read(draw_people(folder / "people", pairs=100))
print(
    f"{len(pairs)} pairs of {len(pairs.people)} people; attributes: {list(pairs.people[0].attributes)}"
)

# %% Splits by person, and what a split cannot know: one person under two ids
train, validation, test = pairs.split(0.70, 0.15, seed=0)
print(len(train), len(validation), len(test))
print(leakage(train, validation, test))

# %% Fit: everybody goes through the backbone once, then the head is trained
matcher = Matcher(backbone="descriptor", metadata=None, store=folder / "store.sqlite")
matcher.fit(train, validation)
print(f"{len(matcher.history)} epochs, last: {matcher.history[-1]}")
for note in matcher.notes:
    print(note)

# %% One split, with its intervals: mind their width
evaluation = matcher.evaluate(test)
print(evaluation)
print(evaluation.compare(evaluation.frozen, name="trained", baseline="frozen"))
recall_figure(evaluation).savefig(folder / "recall.png")

# %% Every pair tested, beside learners that cost nothing
result = matcher.cross_validate(pairs, ["frozen", "centred", "ridge"], repeats=1)
print(result)
for comparison in result.comparisons("frozen"):
    print(comparison)
learners_figure(result).savefig(folder / "learners.png")

# %% Who is shown, and who never is
e_a = matcher.embed([pairs.profiles[a] for a in test.ids_a], side="a")
e_b = matcher.embed([pairs.profiles[b] for b in test.ids_b], side="b")
print(hubness(e_a, e_b, k=5))

# %% For whom it works: the same figures by attribute of the person who asks
regions_a = [pairs.profiles[a].attributes["region"] for a in pairs.ids_a]
regions_b = [pairs.profiles[b].attributes["region"] for b in pairs.ids_b]
for one in slices(result, "trained", "region", regions_a, regions_b):
    few = ", too few to say much" if one.small else ""
    print(
        f"{one.attribute} {one.value}: MRR {one.metrics.mrr:.3f} of {one.metrics.queries} queries{few}"
    )

# %% Shortcuts: how much of the ranking do sharpness, brightness or colour explain?
data = matcher.paired_features(pairs)
of_a = photo_traits([pairs.profiles[a] for a in pairs.ids_a])
of_b = photo_traits([pairs.profiles[b] for b in pairs.ids_b])
for found in shortcuts(data, {name: (of_a[name], of_b[name]) for name in of_a}, "ridge", repeats=1):
    print(
        f"{found.name}: alone MRR {found.alone.mrr:.3f}, explains {100 * found.explained:.0f} % of the scores"
    )

# %% Candidates for someone new, by a rule
newcomer = Profile("newcomer", images=pairs.people[0].images)
candidates = [pairs.profiles[b] for b in test.ids_b if pairs.profiles[b].attributes["age"] >= 30]
for found in matcher.recommend(newcomer, candidates, k=3):
    print(found.rank, found.profile.id, found.profile.attributes["age"], round(found.score, 3))

# %% Save, load, report
matcher.save(folder / "matcher")
again = Matcher.load(folder / "matcher", store=folder / "store.sqlite")
assert (again.embed(test.people) == matcher.embed(test.people)).all()
write_report(
    folder / "report.html",
    matcher_report(matcher, train, validation, test, evaluation, title="Walk-through"),
)
print(f"Open {folder / 'report.html'}.")
