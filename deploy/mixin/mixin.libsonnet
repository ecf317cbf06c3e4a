// Rules and dashboards as a monitoring mixin. They are those of deploy/prometheus/rules and grafana/.
local files = {
  settings: importstr '../prometheus/rules/settings.yml',
  recording: importstr '../prometheus/rules/recording.yml',
  alerts: importstr '../prometheus/rules/alerts.yml',
  comm: importstr '../prometheus/rules/comm.yml',
  owner: importstr '../prometheus/rules/owner.yml',
};
local prefix = 'shortproc:setting:';

{
  _config+:: {
    // Limits of the alerts, by their names in settings.yml: { burst_limit_per_second: 3000, capture_ratio: { netlink: 0.9 } }.
    limits: {},
    // Names of alerts to leave out.
    disabled: [],
    // Prefix of runbook_url: the address of the files of this repository.
    runbookUrl: '',
    // Alerts on command names and on owners: they need shortproc_comm_* and shortproc_owner_*.
    comm: true,
    owner: true,
  },

  local config = $._config,
  local groups = std.flattenArrays([
    std.parseYaml(files[name]).groups
    for name in ['settings', 'recording', 'alerts'] + (if config.comm then ['comm'] else []) + (if config.owner then ['owner'] else [])
  ]),
  local every = std.flattenArrays([group.rules for group in groups]),
  local known = [if 'alert' in rule then rule.alert else std.strReplace(rule.record, prefix, '') for rule in every],
  local wrong = std.setDiff(std.set(std.objectFields(config.limits) + config.disabled), std.set(known)),

  local changed(rule) =
    if 'alert' in rule then
      rule { annotations+: { runbook_url: config.runbookUrl + super.runbook_url } }
    else
      local limit = std.get(config.limits, std.strReplace(rule.record, prefix, ''));
      local value = if std.isObject(limit) then std.get(limit, rule.labels.mode) else limit;
      if value == null then rule else rule { expr: 'vector(%g)' % value },

  local of(kind) =
    assert wrong == [] : 'neither alerts nor limits of the rules: ' + std.join(', ', wrong);
    [
      group { rules: [changed(rule) for rule in super.rules if kind in rule && !std.member(config.disabled, std.get(rule, 'alert'))] }
      for group in groups
      if std.length([rule for rule in group.rules if kind in rule]) > 0
    ],

  prometheusAlerts+:: { groups+: of('alert') },
  prometheusRules+:: { groups+: of('record') },
  grafanaDashboards+:: {
    'shortproc-fleet.json': import '../../grafana/shortproc-fleet.json',
    'shortproc-host.json': import '../../grafana/shortproc-host.json',
  },
}
