"""What both pages have: variables, marks of switches, restarts and alerts, links."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from grafana_foundation_sdk.builders.dashboard import ConstantVariable, Dashboard, DashboardLink, DatasourceVariable, QueryVariable, Row
from grafana_foundation_sdk.models import dashboard as model

from grafana.looks import BAD, NOTICE, RUNBOOK, SOURCE, WARN, Panel
from grafana.queries import Scope, owned

FLEET, HOST = "shortproc-fleet", "shortproc-host"
RUNBOOK_PATH = "docs/runbook.md"
_TAG = "shortproc"


class _Marks(model.AnnotationQuery):
    """The SDK knows no texts of an annotation."""

    def __init__(self, name: str, expr: str, colour: str, title: str, text: str) -> None:
        super().__init__(name, SOURCE, enable=True, icon_color=colour, expr=expr)
        self._texts = {"titleFormat": title, "textFormat": text, "step": "15s"}

    def to_json(self) -> dict[str, object]:
        return {**super().to_json(), **self._texts}


def page(uid: str, title: str, about: str, scope: Scope, sections: Mapping[str, Iterable[Panel]]) -> model.Dashboard:
    """A page; the panels under the title "" stand above all sections."""
    made = Dashboard(title).uid(uid).description(about).tags([_TAG]).time("now-1h", "now").refresh("1m")
    made.tooltip(model.DashboardCursorSync.CROSSHAIR)
    for variable in _variables(one_host=uid == HOST):
        made.with_variable(variable)
    made.link(DashboardLink("Dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([_TAG]).include_vars(True).keep_time(True))
    made.link(DashboardLink("Runbook").type(model.DashboardLinkType.LINK).icon("doc").url(RUNBOOK).target_blank(True))
    for name, panels in sections.items():
        if name:
            made.with_row(Row(name))
        for panel in panels:
            made.with_panel(panel)
    built = made.build()
    built.schema_version = 38  # that of Grafana 10; later ones bring it up to theirs
    built.annotations.list_val = list(_marks(scope))
    for number, each in enumerate(built.panels or [], 1):
        each.id_val = number
    return built


def host_link(host: str) -> model.DynamicConfigValue:
    """To the page of the host that a variable of Grafana names, with the variables and the time of the page that it stands on."""
    kept = "".join(f"&${{{name}:queryparam}}" for name in ("datasource", "job", "comm", "owner"))
    url = f"/d/{HOST}?var-instance=${{{host}}}{kept}&${{__url_time_range}}"
    return model.DynamicConfigValue("links", [{"title": "Open the page of this host", "url": url}])


def _variables(*, one_host: bool) -> Iterable[DatasourceVariable | QueryVariable | ConstantVariable]:
    yield DatasourceVariable("datasource").label("Data source").type("prometheus")
    info, host = "shortproc_exporter_build_info", "=" if one_host else "=~"
    yield _labels("job", "Job", info).multi(True).include_all(True)
    instance = _labels("instance", "Host", f'{info}{{job=~"$job"}}')
    yield instance if one_host else instance.multi(True).include_all(True).all_value(".+")
    named = f'shortproc_comm_exits_total{{job=~"$job", instance{host}"$instance"}}'
    yield (
        _labels("comm", "Command name", named)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .description("Command name (comm) of the processes.")
    )
    owners = owned(f'shortproc_owner_short_exits_total{{job=~"$job", instance{host}"$instance"}}')
    owner = _asked("owner", "Owner", f"query_result(count by (owner) ({owners}))").regex('/owner="([^"]*)"/')
    yield owner.multi(True).include_all(True).all_value(".*").description("Systemd unit, container or pod that the processes belong to.")
    yield ConstantVariable("runbook").label("Runbook URL").value(RUNBOOK_PATH)


def _labels(label: str, shown: str, of: str) -> QueryVariable:
    return _asked(label, shown, f"label_values({of}, {label})")


def _asked(name: str, shown: str, query: str) -> QueryVariable:
    asked: dict[str, object] = {"query": query, "refId": name}
    variable = QueryVariable(name).label(shown).datasource(SOURCE).query(asked)
    return variable.refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)


def _marks(scope: Scope) -> Iterable[model.AnnotationQuery]:
    """Where graphs may have a step for another reason than the host's: each at one step. The first start of an exporter is none."""
    switches, starts = (scope.of(each) for each in ("shortproc_detection_mode_switches_total", "process_start_time_seconds"))
    switched = f"{switches} - {switches} offset $__interval > 0"
    yield _Marks("Mode switches", switched, WARN, "{{instance}}: mode {{to_mode}}", "reason: {{reason}}")
    restarted = f"{starts} - last_over_time({starts}[$__range] offset $__interval) > 0"  # the last scrape before may have failed
    yield _Marks("Restarts", restarted, NOTICE, "{{instance}}: exporter restarted", "")
    yield _Marks("Alerts", scope.firing(), BAD, "{{alertname}} {{instance}}", "{{severity}}")
