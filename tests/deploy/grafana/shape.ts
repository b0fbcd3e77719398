// What Grafana's own types say of a dashboard whose panels are the kinds that ours have. Fields may be left out, as
// Grafana has defaults for them; none may be there that it does not know, and no value that it does not take.
import type { AnnotationQuery, Dashboard, DashboardLink, DataQuery, FieldConfig, Panel, RowPanel, VariableModel } from '@grafana/schema';
import type * as Heatmap from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type * as Stat from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type * as Table from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type * as TimeSeries from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

// JSON has texts where the types have enums of texts.
type Given<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends (infer One)[]
      ? Given<One>[]
      : unknown extends T
        ? T
        : { [Name in keyof T]?: Given<T[Name]> };

// Of a query the types know what all sources have; the rest is what Prometheus takes.
type Query = Given<DataQuery> & {
  refId: string;
  expr: string;
  legendFormat?: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
  exemplar?: boolean;
};
type Bare = Omit<Panel, 'type' | 'options' | 'fieldConfig' | 'targets' | 'title' | 'id' | 'gridPos'>;
type Of<Kind extends string, Options, Custom> = Given<Bare> & {
  type: Kind;
  id: number;
  title: string;
  gridPos: Given<NonNullable<Panel['gridPos']>>;
  options: Given<Options>;
  fieldConfig: { defaults: Given<Omit<FieldConfig, 'custom'>> & { custom?: Given<Custom> }; overrides: [] };
  targets: Query[];
};
type OurPanel =
  | Of<'timeseries', TimeSeries.Options, TimeSeries.FieldConfig>
  | Of<'stat', Stat.Options, Record<never, never>>
  | Of<'heatmap', Heatmap.Options, Heatmap.FieldConfig>
  | Of<'table', Table.Options, Table.FieldConfig>
  | (Given<Omit<RowPanel, 'type' | 'panels'>> & { type: 'row'; panels: [] });

export type OurDashboard = Given<
  Omit<Dashboard, 'panels' | 'templating' | 'annotations' | 'schemaVersion' | 'uid' | 'title' | 'links'>
> & {
  schemaVersion: number;
  uid: string;
  title: string;
  links: Given<DashboardLink>[];
  panels: OurPanel[];
  templating: { list: (Given<Omit<VariableModel, 'query'>> & { query: string | { query: string; refId: string } })[] };
  annotations: { list: (Given<Omit<AnnotationQuery, 'target'>> & { target: Query; titleFormat?: string })[] };
};
